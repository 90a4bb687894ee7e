"""Models through LM Studio's sockets: what is loaded, loading with progress, and unloading.

An identifier names a loaded instance, a key a model that is here. A client finds what is loaded; what is not, it has to
load first, by `loadModel` (which whoever may manage models may do) or `getOrLoad` (which does what a request to the
model would).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.dialects.lmstudio import described, sdk_config, sdk_errors
from llamarunner.dialects.lmstudio.sdk_frames import VOID, Sent, checked, refused
from llamarunner.dialects.lmstudio.sdk_infos import (
    Domain,
    Info,
    Running,
    Specifier,
    fits,
    instance_info,
    model_info,
    seconds,
)
from llamarunner.errors import InvalidRequest, LlamaRunnerError, ModelNotFound
from llamarunner.fleet.lease import AS_IT_IS, Instance, Manner
from llamarunner.fleet.runtimes.llama_server import DEFAULT_SLOTS
from llamarunner.fleet.subject import unit_name
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.server.resolve import native_task
from llamarunner.server.sdk_endpoints import Caller, Cancelled, Channel, Rpc, Streaming
from llamarunner.server.services import View
from llamarunner.server.watch import Patience, Watch

PROGRESS_SECONDS = 0.1


class ByIdentifier(Sent):
    identifier: str = Field(max_length=1024)


class BySpecifier(Sent):
    specifier: Specifier
    throw_if_not_found: bool = True


class Load(Sent):
    model_key: str = Field(max_length=1024)
    identifier: str | None = Field(None, max_length=1024)
    ttl_ms: float | None = None
    load_config_stack: Any


class GetOrLoad(Sent):
    identifier: str = Field(max_length=1024)
    load_ttl_ms: float | None = None
    load_config_stack: Any


class Estimate(Sent):
    model_key: str = Field(max_length=1024)
    load_config_stack: Any


@dataclass(frozen=True, slots=True)
class Loaded:
    """An instance that is ready, and what is told of it."""

    instance: Instance
    model: described.Model
    running: Running
    path: str

    @property
    def info(self) -> Info:
        return instance_info(self.model, self.path, self.running)

    @property
    def config(self) -> dict[str, object]:
        settings = self.instance.settings.model_dump(exclude_none=True)
        return sdk_config.loaded(settings, self.running.context_length, self.model.type)


# ── what is loaded ─────────────────────────────────────────────────────────────────────────────────────────────────


async def loaded(view: View, domain: Domain) -> list[Loaded]:
    """The ready instances of one kind that this client may see; the one that was loaded first comes first."""
    ready = [instance for instance in view.services.supervisor.ready() if _told(view, instance)]
    found = [(instance, described.model(instance.entry)) for instance in ready]
    return [await _loaded(view, instance, model) for instance, model in found if model.type == domain]


async def find_loaded(caller: Caller, specifier: Specifier) -> Loaded:
    """Find the instance that a client means. Raises Displayed."""
    all_loaded = await loaded(caller.view, caller.domain)
    if specifier.type == "instanceReference":
        fit = [one for one in all_loaded if one.running.reference == specifier.instance_reference]
        if not fit:
            raise sdk_errors.unloaded()
    else:
        fit = [one for one in all_loaded if fits(specifier.query, one.model, one.running)]
    if not fit:
        raise sdk_errors.no_match(specifier.told, [one.running.identifier for one in all_loaded])
    return fit[0]


def path_of(entry: ModelEntry) -> str:
    """A model's file as clients may know it: without the folders of this machine."""
    return f"{described.publisher(entry)}/{entry.id}/{entry.path.name}"


def _told(view: View, instance: Instance) -> bool:
    entry = instance.entry
    return view.shows(entry) and described.is_told(entry) and instance.task is native_task(entry)


async def _loaded(view: View, instance: Instance, model: described.Model) -> Loaded:
    services, entry = view.services, instance.entry
    assert instance.endpoint
    granted = await services.figures.granted(instance.endpoint)
    unit = services.supervisor.unit(entry, instance.task)
    running = Running(
        identifier=view.labels.label_of(instance) or entry.instance_id,
        reference=hashlib.sha256(f"{unit_name(entry, instance.task)} {instance.began}".encode()).hexdigest()[:24],
        context_length=granted.context_length or entry.context_length or 0,
        ttl=unit.terms.ttl if unit and not unit.kept and not unit.terms.pinned else None,
        used_at=services.supervisor.last_used(entry, instance.task),
    )
    return Loaded(instance, model, running, path_of(entry))


async def _list(caller: Caller, parameter: object) -> object:
    return [one.info for one in await loaded(caller.view, caller.domain)]


async def _info(caller: Caller, parameter: object) -> object:
    asked = checked(BySpecifier, parameter)
    try:
        return (await find_loaded(caller, asked.specifier)).info
    except sdk_errors.Displayed:
        if asked.throw_if_not_found:
            raise
        return VOID


async def _load_config(caller: Caller, parameter: object) -> object:
    return (await find_loaded(caller, checked(BySpecifier, parameter).specifier)).config


async def _prediction_config(caller: Caller, parameter: object) -> object:
    await find_loaded(caller, checked(BySpecifier, parameter).specifier)
    return sdk_config.written({})


async def _state(caller: Caller, parameter: object) -> object:
    one = await find_loaded(caller, checked(BySpecifier, parameter).specifier)
    supervisor, figures = caller.view.services.supervisor, caller.view.services.figures
    unit = supervisor.unit(one.instance.entry, one.instance.task)
    assert one.instance.endpoint
    slots = (await figures.granted(one.instance.endpoint)).slots
    leases, waiting = (len(unit.leases), len(unit.waiting)) if unit else (0, 0)
    busy = leases if slots is None else min(leases, slots)
    working = "computingEmbedding" if caller.domain == "embedding" else "generating"
    return {"status": working if busy else "idle", "queued": waiting + leases - busy}


async def _estimate(caller: Caller, parameter: object) -> object:
    asked = checked(Estimate, parameter)
    entry = find_key(caller, asked.model_key)
    settings = _settings(caller, entry, asked.load_config_stack)
    context = settings.ctx_size or min(entry.context_length or 4096, 4096)
    total = entry.memory_needed(context)
    model = entry.size + entry.mmproj_size
    memory = {
        **{"confidence": "low", "modelVramBytes": model, "contextVramBytes": total - model, "totalVramBytes": total},
        **{"modelBytes": model, "contextBytes": total - model, "totalBytes": total},
    }
    machine = await caller.view.services.figures.machine()
    return {"memory": memory, "passesGuardrails": total <= machine.available_bytes}


# ── loading ────────────────────────────────────────────────────────────────────────────────────────────────────────


def find_key(caller: Caller, key: str) -> ModelEntry:
    """Find a model of the socket's kind by any of its names. Raises Displayed."""
    view = caller.view
    try:
        entry = view.find(key)
    except ModelNotFound:
        entry = None
    if entry is None or not described.is_told(entry):
        known = [one.id for one in view.entries if described.is_told(one)]
        raise sdk_errors.path_not_found(key, known)
    kind = described.model(entry).type
    if kind != caller.domain:
        raise sdk_errors.domain_mismatch(entry.id, kind, caller.domain)
    return entry


async def _load(caller: Caller, parameter: object, channel: Channel) -> None:
    asked = checked(Load, parameter)
    entry = find_key(caller, asked.model_key)
    caller.view.check_management(caller.client)
    settings = _settings(caller, entry, asked.load_config_stack)
    if (ttl := seconds(asked.ttl_ms, "ttlMs")) is not None:
        settings = settings.model_copy(update={"ttl_seconds": ttl})
    await channel.send({"type": "resolved", "info": model_info(described.model(entry), path_of(entry))})
    supervisor = caller.view.services.supervisor
    if asked.identifier:
        _check_free(caller, asked.identifier)
    entry = caller.view.another(entry)
    started = supervisor.start(entry, native_task(entry), settings)
    if asked.identifier:
        caller.view.labels.give(asked.identifier, started)

    async def load() -> None:
        await asyncio.shield(started)

    try:
        with caller.counted("loadModel") as (record, _):
            record.model_id = entry.id
            await _progressing(caller, entry, channel, "progress", load)
    except Cancelled:
        await supervisor.unload(entry)
        return
    except BaseException:  # who has left never learns its name
        supervisor.let_go(entry)
        raise
    await channel.send({"type": "success", "info": (await _now(caller, entry)).info})


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


def _settings(caller: Caller, entry: ModelEntry, stack: object) -> ModelSettings:
    """The settings that a load's configuration asks for. Raises InvalidRequest that names the field."""
    layers = entry.header.detail("block_count") if entry.header else None
    wanted = sdk_config.loading(sdk_config.flattened(stack), caller.domain, layers)
    tokens = wanted.get("ctx_size")
    if isinstance(tokens, int):
        usual = caller.view.services.settings.for_model(entry.id)
        unified = wanted.get("kv_unified", usual.kv_unified)
        slots = wanted.get("parallel") or usual.parallel or DEFAULT_SLOTS
        wanted["ctx_size"] = tokens * (1 if unified is not False or not isinstance(slots, int) else slots)
    try:
        return ModelSettings.model_validate(wanted)
    except ValidationError as error:
        raise refused(error) from None


def _manner(caller: Caller, entry: ModelEntry, asked: GetOrLoad) -> Manner:
    """How a model is to be run that is not loaded yet; as the owner has it for those who may not manage models."""
    settings, ttl = _settings(caller, entry, asked.load_config_stack), seconds(asked.load_ttl_ms, "loadTtlMs")
    if not caller.view.may_manage(caller.client):
        return AS_IT_IS
    return Manner(settings if settings.model_fields_set else None, ttl)


async def _unload(caller: Caller, parameter: object) -> object:
    asked = checked(ByIdentifier, parameter)
    caller.view.check_management(caller.client)
    found = await loaded(caller.view, caller.domain)
    for one in found:
        if one.running.identifier == asked.identifier:
            await caller.view.services.supervisor.unload(one.instance.entry)
            return VOID
    raise sdk_errors.identifier_not_found(asked.identifier, [one.running.identifier for one in found])


RPCS: Mapping[str, Rpc] = {
    "listLoaded": _list,
    "getModelInfo": _info,
    "getLoadConfig": _load_config,
    "getBasePredictionConfig": _prediction_config,
    "getInstanceProcessingState": _state,
    "estimateModelUsage": _estimate,
    "unloadModel": _unload,
}
CHANNELS: Mapping[str, Streaming] = {"loadModel": _load, "getOrLoad": _get_or_load}
