"""Models through LM Studio's sockets: which are loaded, how they run, and unloading.

An identifier names a loaded instance, a key a model that is here. A client finds what is loaded; what is not, it has to
load first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
)
from llamarunner.errors import ModelNotFound
from llamarunner.fleet.lease import Instance
from llamarunner.fleet.subject import unit_name
from llamarunner.server.lmstudio_loading import config_of, context_for
from llamarunner.server.resolve import native_task
from llamarunner.server.sdk_endpoints import Caller, Rpc
from llamarunner.server.services import View

PROGRESS_SECONDS = 0.1


class ByIdentifier(Sent):
    identifier: str = Field(max_length=1024)


class BySpecifier(Sent):
    specifier: Specifier
    throw_if_not_found: bool = True


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
    config = await config_of(services, instance)
    unit = services.supervisor.unit(entry, instance.task)
    running = Running(
        identifier=view.labels.label_of(instance) or entry.instance_id,
        reference=hashlib.sha256(f"{unit_name(entry, instance.task)} {instance.began}".encode()).hexdigest()[:24],
        context_length=config.context_length,
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
    settings = settings_of(caller, entry, asked.load_config_stack)
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


def settings_of(caller: Caller, entry: ModelEntry, stack: object, ttl: float | None = None) -> ModelSettings:
    """The settings that a load's configuration asks for; `ttl` is in seconds. Raises InvalidRequest, naming the field.

    No request gets more context than the model was trained for.
    """
    layers = entry.header.detail("block_count") if entry.header else None
    wanted = sdk_config.loading(sdk_config.flattened(stack), caller.domain, layers)
    if ttl is not None:
        wanted["ttl_seconds"] = ttl
    tokens = wanted.pop("ctx_size", None)
    try:
        chosen = ModelSettings.model_validate(wanted)
        if isinstance(tokens, int):
            usual = caller.view.services.settings.for_model(entry.id)
            wanted["ctx_size"] = context_for(entry, usual.merged(chosen), tokens)
            chosen = ModelSettings.model_validate(wanted)
    except ValidationError as error:
        raise refused(error) from None
    return chosen


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
