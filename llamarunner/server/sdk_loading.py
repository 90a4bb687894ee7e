"""Loading models through LM Studio's sockets, with progress: `loadModel` and `getOrLoad`.

The first makes one more instance, under a name of the client's choice if it gives one, and is for those who may manage
models. The second takes what is loaded, or does what a request to the model would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import Field

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.dialects.lmstudio import described, sdk_errors
from llamarunner.dialects.lmstudio.sdk_frames import Sent, checked
from llamarunner.dialects.lmstudio.sdk_infos import model_info, seconds
from llamarunner.errors import InvalidRequest, LlamaRunnerError, ModelNotFound
from llamarunner.fleet.lease import AS_IT_IS, Manner
from llamarunner.fleet.subject import unit_name
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.server.resolve import native_task
from llamarunner.server.sdk_endpoints import Caller, Cancelled, Channel, Streaming
from llamarunner.server.sdk_models import Loaded, find_key, loaded, path_of, settings_of
from llamarunner.server.watch import Patience, Watch

PROGRESS_SECONDS = 0.1


class Load(Sent):
    model_key: str = Field(max_length=1024)
    identifier: str | None = Field(None, max_length=1024)
    ttl_ms: float | None = None
    load_config_stack: Any


class GetOrLoad(Sent):
    identifier: str = Field(max_length=1024)
    load_ttl_ms: float | None = None
    load_config_stack: Any


async def _load(caller: Caller, parameter: object, channel: Channel) -> None:
    asked = checked(Load, parameter)
    entry = find_key(caller, asked.model_key)
    caller.view.check_management(caller.client)
    settings = settings_of(caller, entry, asked.load_config_stack, seconds(asked.ttl_ms, "ttlMs"))
    await channel.send({"type": "resolved", "info": model_info(described.model(entry), path_of(entry))})
    with caller.counted("loadModel") as (record, _):
        record.model_id = entry.id
        made = await _one_more(caller, entry, asked.identifier, settings, channel)
    if made is not None:
        await channel.send({"type": "success", "info": (await _now(caller, made)).info})


async def _one_more(
    caller: Caller, entry: ModelEntry, label: str | None, settings: ModelSettings, channel: Channel
) -> ModelEntry | None:
    """Load one more instance; None if the client wants it no longer. Raises why it cannot be loaded."""
    if label:
        _check_free(caller, label)
    supervisor, entry = caller.view.services.supervisor, caller.view.another(entry)
    started = supervisor.start(entry, native_task(entry), settings)
    if label:
        caller.view.labels.give(label, started)

    async def load() -> None:
        await asyncio.shield(started)

    try:
        await _progressing(caller, entry, channel, "progress", load)
    except Cancelled:
        await supervisor.unload(entry)
        return None
    except BaseException:  # who has left never learns its name
        supervisor.let_go(entry, alone=True)
        raise
    return entry


def _check_free(caller: Caller, label: str) -> None:
    """Refuse a name for an instance that means something else. Raises InvalidRequest."""
    taken = caller.view.labels.is_taken(label)
    with contextlib.suppress(ModelNotFound):
        taken = caller.view.find(label) is not None
    if taken:
        raise InvalidRequest(f"The identifier '{label}' is in use.", param="identifier")


async def _get_or_load(caller: Caller, parameter: object, channel: Channel) -> None:
    asked = checked(GetOrLoad, parameter)
    if (found := await _named(caller, asked.identifier)) is not None:
        await channel.send({"type": "alreadyLoaded", "info": found.info})
        return
    entry = find_key(caller, asked.identifier)
    manner = _manner(caller, entry, asked)
    for other in await _making_way(caller):
        await channel.send({"type": "unloadingOtherJITModel", "info": other.info})
    info = model_info(described.model(entry), path_of(entry))
    await channel.send({"type": "startLoading", "identifier": entry.instance_id, "info": info})

    async def lease() -> None:
        async with caller.view.services.supervisor.lease(entry, native_task(entry), manner):
            pass

    try:
        with caller.counted("getOrLoad") as (record, _):
            record.model_id = entry.id
            await _progressing(caller, entry, channel, "loadProgress", lease)
    except Cancelled:
        return
    await channel.send({"type": "loadSuccess", "info": (await _now(caller, entry)).info})


async def _making_way(caller: Caller) -> list[Loaded]:
    """What is unloaded for a model that a request loads, where only the last of those is kept."""
    view = caller.view
    if not view.services.settings.supervisor.only_last_jit_model:
        return []
    found = [*await loaded(view, "llm"), *await loaded(view, "embedding")]
    units = [view.services.supervisor.unit(one.instance.entry, one.instance.task) for one in found]
    return [one for one, unit in zip(found, units, strict=True) if unit and not unit.kept and not unit.terms.pinned]


async def _named(caller: Caller, name: str) -> Loaded | None:
    """The loaded instance of an identifier, else the first one of a key."""
    found = await loaded(caller.view, caller.domain)
    by_name = [one for one in found if one.running.identifier == name]
    if not by_name:
        with contextlib.suppress(ModelNotFound):
            key = caller.view.find(name).id
            by_name = [one for one in found if one.model.key == key]
    return by_name[0] if by_name else None


async def _now(caller: Caller, entry: ModelEntry) -> Loaded:
    """The instance that has just been loaded."""
    found = await loaded(caller.view, caller.domain)
    fit = [one for one in found if one.instance.entry.instance_id == entry.instance_id]
    if not fit:
        raise sdk_errors.identifier_not_found(entry.instance_id, [one.running.identifier for one in found])
    return fit[0]


async def _progressing(
    caller: Caller, entry: ModelEntry, channel: Channel, kind: str, load: Callable[[], Awaitable[None]]
) -> None:
    """Load a model and tell how far it is, in packets of a kind. Raises Cancelled, or why it cannot be loaded."""
    services = caller.view.services
    watch = Watch(Patience.of(services.settings.server, pulse=False))

    async def outcome() -> LlamaRunnerError | None:
        try:
            await load()
        except LlamaRunnerError as error:
            return error
        return None

    channel.when_stopped(lambda: watch.end(Cancelled("cancelled")))
    with services.drain.counting(watch):
        async with watch, asyncio.TaskGroup() as group:
            if channel.stopped:
                watch.end(Cancelled("cancelled"))
            loading = group.create_task(outcome())
            with contextlib.suppress(ConnectionError):  # the socket ends us then
                await _tell_progress(services.supervisor, unit_name(entry, native_task(entry)), channel, kind, loading)
    if error := loading.result():
        raise error
    await channel.send({"type": kind, "progress": 1.0})


async def _tell_progress(
    supervisor: Supervisor, unit: str, channel: Channel, kind: str, loading: asyncio.Task[LlamaRunnerError | None]
) -> None:
    last = 0.0
    await channel.send({"type": kind, "progress": last})
    while not loading.done():
        await asyncio.wait({loading}, timeout=PROGRESS_SECONDS)
        progress = None if loading.done() else supervisor.progress(unit)
        if progress and progress.fraction and last < progress.fraction < 1:
            last = progress.fraction
            await channel.send({"type": kind, "progress": last})


def _manner(caller: Caller, entry: ModelEntry, asked: GetOrLoad) -> Manner:
    """How a model is to be run that is not loaded yet; as the owner has it for those who may not manage models."""
    settings, ttl = settings_of(caller, entry, asked.load_config_stack), seconds(asked.load_ttl_ms, "loadTtlMs")
    if not caller.view.may_manage(caller.client):
        return AS_IT_IS
    return Manner(settings if settings.model_fields_set else None, first_ttl=ttl)


CHANNELS: Mapping[str, Streaming] = {"loadModel": _load, "getOrLoad": _get_or_load}
