"""What all of Ollama's paths need of a request: its body, the model that it means, and how that is to be run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from aiohttp import web

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import strict_json
from llamarunner.dialects.ollama import names, requests
from llamarunner.dialects.ollama.errors import OLLAMA, CloudDisabled, ModelMissing
from llamarunner.errors import InvalidRequest, ModelNotFound
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.fleet.runtimes.llama_server import context_size
from llamarunner.server import body, relay, upstream
from llamarunner.server.record import RECORD, Record
from llamarunner.server.services import CLIENT, VIEW, Services, View
from llamarunner.server.upstream import Call
from llamarunner.server.watch import Patience, Watch
from llamarunner.server.wishes import own_manner, wished

R = TypeVar("R", bound=requests.Body)

LARGE_BYTES = 1 << 18  # of a body that is read in a thread, for it may take a second
JSON = "application/json; charset=utf-8"


async def read(request: web.Request, kind: type[R]) -> R:
    """Read the body. Raises InvalidRequest, PayloadTooLarge, UnsupportedMedia or RequestTimeout."""
    request[RECORD].dialect = OLLAMA.name
    body.check_type(request)
    raw = await body.read(request, request.app[VIEW].services.settings.server)
    if len(raw) < LARGE_BYTES:
        return requests.read(kind, raw)
    return await asyncio.to_thread(requests.read, kind, raw)


async def answer(request: web.Request, document: object) -> web.StreamResponse:
    return await relay.whole(request, strict_json.dumps(document), JSON, request.app[VIEW].services)


def not_found(name: str) -> str:
    return f"model '{name}' not found"


def find(
    view: View, name: str, missing: Callable[[str], str] = not_found, remote: str = "remote model is"
) -> ModelEntry:
    """Find a model by any of its names.

    Raises ModelMissing or CloudDisabled in the words of the route, or InvalidRequest for what is no name.
    """
    try:
        return view.find(name)
    except ModelNotFound:
        if names.contradicts_itself(name):
            raise InvalidRequest(f'use either :local or :cloud, not both: "{name[:200]}"', param="model") from None
        if names.is_remote(name):
            raise CloudDisabled(remote) from None
        if names.parse(name) is None:
            raise InvalidRequest("invalid model name", param="model") from None
        raise ModelMissing(missing(name[:200])) from None


def manner_of(
    request: web.Request, entry: ModelEntry, task: Task, options: Mapping[str, object], ttl: float | None
) -> Manner:
    """How a request wants its model to be run; those who may not manage models here take it as it comes.

    Raises WrongOption.
    """
    view = request.app[VIEW]
    wanted = wished(view, entry, task, options)
    if not view.may_manage(request[CLIENT]):
        return own_manner(view, entry, task)
    return Manner(wanted, ttl, keep=None if ttl is None else False)


def context_of(view: View, entry: ModelEntry, task: Task, manner: Manner) -> int:
    """How many tokens the model has, or will have, for a request that wants it so."""
    instance = view.services.supervisor.instance(entry, task)
    settings = instance.settings if instance else view.services.settings.for_model(entry.id)
    shared = context_size(entry, settings.merged(manner.settings) if manner.settings else settings, task)
    return min(shared, entry.context_length or shared)


async def hold(request: web.Request, entry: ModelEntry, task: Task, manner: Manner) -> None:
    """Let a model be loaded, and used by nobody."""
    services = request.app[VIEW].services
    request[RECORD].model_id = entry.id
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, services.supervisor.lease(entry, task, manner) as lease:
            request[RECORD].leased(lease)


async def ask_whole(services: Services, call: Call, record: Record | None = None) -> bytes:
    """Ask a model and read all that it says; the record takes over what was waited for."""
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        async with watch, AsyncExitStack() as stack:
            said = await upstream.ask(stack, services, call, watch)
            if record is not None:
                record.leased(said.lease)
            return await said.whole()
