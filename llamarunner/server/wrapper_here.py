"""The models of this server, as the wrapper API asks for them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

from aiohttp import web

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.dialects.lmstudio import described, wrapper
from llamarunner.dialects.lmstudio.errors import InvalidValue
from llamarunner.dialects.lmstudio.wrapper import Listed, NotLoaded, WrapperLoaded, WrapperUnloaded
from llamarunner.errors import InvalidRequest
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.server import lmstudio_loading, lmstudio_models, lmstudio_openai
from llamarunner.server.lmstudio_resolve import find, resolve_for_lmstudio
from llamarunner.server.openai_api import Ask
from llamarunner.server.record import RECORD
from llamarunner.server.resolve import native_task
from llamarunner.server.services import VIEW
from llamarunner.server.upstream import ask
from llamarunner.server.watch import Watch

_ASK = Ask(Task.GENERATE, streams=True)


class Source(Protocol):
    """An answer of OpenAI's whose status is good."""

    async def some(self) -> bytes:
        """Read what has arrived; empty at the end. Raises BackendFailed if it breaks off."""

    async def whole(self) -> bytes:
        """Read all. Raises BackendFailed if it breaks off."""


Opening = Callable[[AsyncExitStack, Watch], Awaitable[Source]]
"""Asks a model; the answer lives as long as the stack."""


class Backend(Protocol):
    """What stands behind the wrapper API, for one request."""

    async def models(self) -> list[Listed]:
        """The models that the request may see."""

    async def load(self, key: str, ttl: float | None) -> WrapperLoaded:
        """Load a model, if it is not in memory; `ttl` are the seconds of idleness that it then has, None without end.

        Raises ModelNotFound, or as a model's start does.
        """

    async def unload(self, key: str) -> WrapperUnloaded:
        """Unload an instance. Raises ModelNotFound if there is none."""

    async def question(self, path: str, document: dict[str, object], *, vision: bool = False) -> Opening:
        """Find the model of a body in OpenAI's language, for one of its paths. Raises as `resolve_for_lmstudio`."""


class Here:
    """This server as such a backend."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._view = request.app[VIEW]

    async def models(self) -> list[Listed]:
        return wrapper.read_v1({"models": await lmstudio_models.listed(self._view)}) or []

    async def load(self, key: str, ttl: float | None) -> WrapperLoaded:
        entry = find(self._view, key)
        if not described.is_told(entry):
            raise InvalidValue(f"The model '{entry.id}' is neither an LLM nor an embedding model.", param="model_key")
        self._request[RECORD].model_id = entry.id
        began, was_there = time.monotonic(), self._is_ready(entry)
        manner = None if ttl is None else Manner(ttl=ttl, keep=False)
        await self._view.services.supervisor.start(entry, native_task(entry), manner=manner)
        seconds = 0.0 if was_there else round(time.monotonic() - began, 3)
        return WrapperLoaded("loaded", entry.id, entry.instance_id, seconds, ttl)

    async def unload(self, key: str) -> WrapperUnloaded:
        entry = find(self._view, key)
        if self._view.find_instance(entry.instance_id) is None:
            raise NotLoaded(key)
        self._request[RECORD].model_id = entry.id
        await self._view.services.supervisor.unload(entry)
        return WrapperUnloaded("unloaded", entry.id, entry.instance_id)

    async def question(self, path: str, document: dict[str, object], *, vision: bool = False) -> Opening:
        if vision and not document.get("model"):
            document = {**document, "model": wrapper.chosen(await self.models(), vision=True)}
        if vision:
            self._check_sight(document)
        services = self._view.services
        call = lmstudio_openai.called(self._request, path, _ASK, (None, document))

        async def opening(stack: AsyncExitStack, watch: Watch) -> Source:
            answer = await ask(stack, services, call, watch)
            self._request[RECORD].leased(answer.lease)
            return answer

        return opening

    def _is_ready(self, entry: ModelEntry) -> bool:
        return any(one.entry.instance == entry.instance for one in lmstudio_loading.ready(self._view, entry))

    def _check_sight(self, document: dict[str, object]) -> None:
        entry, _ = resolve_for_lmstudio(self._view, document, Task.GENERATE)
        if Capability.VISION not in entry.capabilities:
            raise InvalidRequest(f"The model '{entry.id}' cannot see images.", param="model")
