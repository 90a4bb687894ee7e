"""Models by REST: what each one is, what it is doing, and starting and stopping it.

Several processes may serve one model: its instances, and of each instance one for each task. What is shown is the one
that it is made for, or else the one that runs; its memory is that of all. The fields are those of the LlamaRunner Pro
API, and more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aiohttp import web
from pydantic import GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from llamarunner.catalog import Format, ModelEntry
from llamarunner.config import LIFE, ModelSettings
from llamarunner.dialects import strict_json
from llamarunner.errors import InvalidRequest
from llamarunner.events import timestamp
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Instance
from llamarunner.fleet.progress import Progress
from llamarunner.fleet.unit import State, Unit
from llamarunner.server import body, query
from llamarunner.server.figures import Granted
from llamarunner.server.resolve import native_task
from llamarunner.server.services import CLIENT, VIEW, View

Status = Literal["loaded", "loading", "unloaded", "error"]

# What a request may not set: files and programs of this machine are the owner's business alone.
OWNERS = frozenset({"mmproj", "lora", "model_draft", "chat_template_file", "extra_args", "runtime"})


@dataclass(frozen=True, slots=True)
class Slots:
    """How many requests the model works on at the same time."""

    busy: int
    total: int | None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    id: str
    status: Status
    port: int | None
    uptime: int  # seconds since it was loaded
    memory_usage: int  # bytes, of all processes
    last_used: str | None  # UTC, ISO 8601; null if no request was ever done with it
    expires_at: str | None  # UTC, ISO 8601: when it is unloaded if it is not used; null if it stays, or is not loaded
    queue_length: int  # requests that wait for it, or for one of its slots
    slots: Slots
    context_length: int | None  # tokens that one request can really use
    progress: Progress | None  # while it loads
    draining: bool  # it is unloaded as soon as its running answers are finished
    error: str | None  # the cause, if the status is error


@dataclass(frozen=True, slots=True)
class ModelStarted:
    success: bool
    port: int | None
    status: Literal["starting", "loaded"]
    id: str


@dataclass(frozen=True, slots=True)
class ModelStopped:
    success: bool
    status: Literal["stopped"]
    id: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    id: str
    path: str
    size: int  # bytes of all shards
    parameters: int | None  # a count
    format: Format
    architecture: str | None
    context_length: int | None  # tokens that it was trained for
    loaded: bool
    port: int | None
    name: str | None
    publisher: str | None
    license: str | None
    quantization: str | None
    capabilities: list[str]
    embedding_length: int | None
    chat_template: bool  # whether the file has one
    files: int
    created: int  # Unix time at which the file changed last
    error: str | None


class Overrides(ModelSettings):
    """Settings of a model that hold until it is unloaded. Those that only its owner may set are refused by name."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        schema["properties"] = {name: one for name, one in schema["properties"].items() if name not in OWNERS}
        return schema


async def status(request: web.Request) -> web.Response:
    """Say what a model is doing."""
    view, entry = _asked(request)
    supervisor, figures = view.services.supervisor, view.services.figures
    task = shown_task(view, entry)
    unit, instance = supervisor.unit(entry, task), supervisor.instance(entry, task)
    state = status_of(view, entry)
    granted = Granted()
    left = seconds_left(unit) if unit and state == "loaded" else None
    if state == "loaded" and instance and instance.endpoint:
        granted = await figures.granted(instance.endpoint)
    leases = len(unit.leases) if unit else 0
    busy = leases if granted.slots is None else min(leases, granted.slots)
    used = supervisor.last_used(entry, task)
    return _json(
        ModelStatus(
            id=entry.id,
            status=state,
            port=_port(instance) if state == "loaded" else None,
            uptime=int(time.monotonic() - unit.loaded_at) if unit and state == "loaded" else 0,
            memory_usage=await figures.tree_bytes(all_pids(view, entry)),
            last_used=None if used is None else timestamp(used),
            expires_at=None if left is None else timestamp(time.time() + left),
            queue_length=(len(unit.waiting) if unit else 0) + leases - busy,
            slots=Slots(busy, granted.slots),
            context_length=granted.context_length,
            progress=supervisor.progress(unit.name) if unit and state == "loading" else None,
            draining=bool(unit and unit.state is State.LOADED and unit.draining),
            error=_cause(entry, unit) if state == "error" else None,
        )
    )


async def start(request: web.Request) -> web.Response:
    """Load a model: answer at once, or with `?wait=true` when it is loaded.

    The body may override settings of the model, which holds until it is unloaded.
    """
    view, entry = _asked(request)
    view.check_management(request[CLIENT])
    wait = query.flag(request, "wait")
    overrides = await _overrides(request, view, entry)
    started = view.services.supervisor.start(entry, native_task(entry), overrides)
    if wait:
        await asyncio.shield(started)
    if not started.done():
        return _json(ModelStarted(True, None, "starting", entry.id))
    return _json(ModelStarted(True, _port(started.result()), "loaded", entry.id))


async def stop(request: web.Request) -> web.Response:
    """Unload a model when its running answers are finished, or with `?force=true` at once; answer when it is done.

    All of its instances, or the one that is named.
    """
    view, entry = _asked(request)
    view.check_management(request[CLIENT])
    meant = view.meant(entry, request.match_info["id"])
    await view.services.supervisor.stop(meant, force=query.flag(request, "force"))
    return _json(ModelStopped(True, "stopped", entry.id))


async def info(request: web.Request) -> web.Response:
    """Say what a model's file says about it.

    The one answer that holds a path of this machine; who may not manage models sees the file's name alone.
    """
    view, entry = _asked(request)
    loaded = status_of(view, entry) == "loaded"
    header = entry.header
    path = entry.path if view.may_manage(request[CLIENT]) else entry.path.name
    return _json(
        ModelInfo(
            id=entry.id,
            path=str(path).encode(errors="replace").decode(),
            size=entry.size,
            parameters=entry.parameters,
            format=entry.format,
            architecture=entry.architecture,
            context_length=entry.context_length,
            loaded=loaded,
            port=_port(view.services.supervisor.instance(entry, shown_task(view, entry))) if loaded else None,
            name=header.text("general.name") if header else None,
            publisher=entry.publisher,
            license=header.text("general.license") if header else None,
            quantization=entry.quantization,
            capabilities=sorted(entry.capabilities),
            embedding_length=entry.embedding_length,
            chat_template=entry.chat_template is not None,
            files=len(entry.files),
            created=entry.created,
            error=entry.error,
        )
    )


# ── readings, for other answers too ────────────────────────────────────────────────────────────────────────────────


def status_of(view: View, entry: ModelEntry) -> Status:
    """One of the four states in which a client sees a model; a model that somebody waits for is loading."""
    if entry.error:
        return "error"
    entry = view.at_hand(entry)
    unit = view.services.supervisor.unit(entry, shown_task(view, entry))
    if unit is None:
        return "unloaded"
    if unit.state is State.LOADED:
        return "loaded"
    if unit.state is State.LOADING or unit.waiting:
        return "loading"
    return "error" if unit.state is State.ERROR else "unloaded"


def shown_task(view: View, entry: ModelEntry) -> Task:
    """The task whose process stands for the model."""
    native = native_task(entry)
    running = (task for task in (native, *Task) if view.services.supervisor.instance(entry, task))
    return next(running, native)


def all_pids(view: View, entry: ModelEntry) -> list[int]:
    """The processes of a model, whatever they are for, of all its instances."""
    return [pid for one in view.instances(entry) for pid in pids(view, one)]


def seconds_left(unit: Unit) -> float | None:
    """In how many seconds a loaded model is unloaded if it is not used meanwhile; None if it stays."""
    if unit.kept or unit.terms.pinned or unit.terms.ttl is None:
        return None
    return unit.terms.ttl - (time.monotonic() - unit.last_used if unit.idle else 0.0)


def pids(view: View, entry: ModelEntry) -> list[int]:
    """The processes of one instance, whatever they are for."""
    instances = (view.services.supervisor.instance(entry, task) for task in Task)
    return [instance.child.pid for instance in instances if instance and instance.child]


def _cause(entry: ModelEntry, unit: Unit | None) -> str | None:
    return entry.error or (unit.death.cause if unit and unit.death else None)


def _port(instance: Instance | None) -> int | None:
    return instance.endpoint.port if instance and instance.endpoint else None


# ── requests ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _asked(request: web.Request) -> tuple[View, ModelEntry]:
    view = request.app[VIEW]
    return view, view.find(request.match_info["id"])


async def _overrides(request: web.Request, view: View, entry: ModelEntry) -> ModelSettings | None:
    """Read the settings in the body, if there is one. Raises InvalidRequest that names the field."""
    if not request.can_read_body:
        return None
    _, document = await body.read_object(request, view.services.settings.server)
    for name in sorted(OWNERS & document.keys()):
        raise InvalidRequest(f"'{name}' can be set in the settings file only.", param=name)
    if not document:
        return None
    if native_task(entry) is Task.TRANSCRIBE:
        _check_for_speech(document)
    body.check_bounds(document)
    try:
        return Overrides.model_validate_json(strict_json.dumps(_integral(document)), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _refusal(fault["loc"], fault["type"], fault["msg"]) from None


def _check_for_speech(document: Mapping[str, object]) -> None:
    """Refuse what llama.cpp alone knows. Raises InvalidRequest."""
    for name in sorted(ModelSettings.model_fields.keys() & document.keys() - LIFE):
        allowed = " and ".join(sorted(LIFE))
        raise InvalidRequest(f"'{name}' is not a setting of speech models; {allowed} are.", param=name)


def _integral(document: dict[str, object]) -> dict[str, object]:
    """Write whole numbers as such: to JSON Schema, and to clients that know but one kind of number, 2.0 is one."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
        for name, value in document.items()
    }


def _refusal(place: tuple[int | str, ...], kind: str, message: str) -> InvalidRequest:
    param = str(place[0]) if place else None
    if kind == "extra_forbidden":
        return InvalidRequest(f"'{param}' is not a setting of models.", param=param)
    return InvalidRequest(f"'{param}' is wrong: {message[:1].lower()}{message[1:]}.", param=param)


def _json(value: Any) -> web.Response:
    return web.Response(body=strict_json.dumps(asdict(value)), content_type="application/json")
