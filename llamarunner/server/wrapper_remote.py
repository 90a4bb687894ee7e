"""Another LM Studio, as the wrapper API asks for its models: by its REST API, through the outbound guard.

The owner names the address, so it may be on this machine or in a private network; but never a port of this server,
which would ask itself for ever. Its own door counts who asks: to it, all are this server.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from pydantic_core import from_json

from llamarunner.dialects import strict_json
from llamarunner.dialects.lmstudio import wrapper
from llamarunner.dialects.lmstudio.errors import UnknownModel
from llamarunner.dialects.lmstudio.wrapper import Listed, NotLoaded, WrapperLoaded, WrapperUnloaded
from llamarunner.errors import (
    BackendFailed,
    BackendTimeout,
    InvalidRequest,
    LlamaRunnerError,
    ModelNotFound,
    PayloadTooLarge,
    ServiceUnavailable,
)
from llamarunner.outbound import Denied, Unreachable
from llamarunner.server.services import ALL_MODELS, SCOPE, VIEW
from llamarunner.server.watch import Phase, Watch
from llamarunner.server.wrapper_here import Opening, Source

MOST_BYTES = 64 * 2**20  # of an answer in one piece
MOST_ERROR = 2**16
SHOWN = 500  # characters of what it says is wrong
OWN = (
    "LM Studio cannot be asked: LMSTUDIO_HOST (wrapper.lmstudio_host) leads to this server itself, or to an address "
    "that is never dialled."
)


class Absent(ModelNotFound):
    """It says 404."""

    def __init__(self, said: str) -> None:
        super().__init__("")
        self.message = said


@dataclass(frozen=True, slots=True)
class Answer:
    """What it answers, as it comes."""

    response: aiohttp.ClientResponse

    async def some(self) -> bytes:
        try:
            return await self.response.content.readany()
        except (aiohttp.ClientError, OSError):
            raise BackendFailed("LM Studio broke off its answer.") from None

    async def whole(self) -> bytes:
        return await self.at_most(MOST_BYTES)

    async def at_most(self, limit: int) -> bytes:
        """Read all. Raises BackendFailed if it is longer, or breaks off."""
        body = bytearray()
        while piece := await self.some():
            body += piece
            if len(body) > limit:
                raise BackendFailed("LM Studio's answer is too long.")
        return bytes(body)


class Remote:
    """An LM Studio elsewhere as a backend; `base` is its URL, without a slash at the end."""

    def __init__(self, request: web.Request, base: str) -> None:
        self._view = request.app[VIEW]
        self._services = self._view.services
        self._settings = self._services.settings.wrapper
        self._base = base

    async def models(self) -> list[Listed]:
        try:
            listed = wrapper.read_v1(await self._told("GET", "/api/v1/models"))
        except Absent:
            listed = None
        if listed is None:  # LM Studio before 0.4
            listed = wrapper.read_v0(await self._told("GET", "/api/v0/models"))
        if listed is None:
            raise BackendFailed("LM Studio did not tell its models; is it one that listens there?")
        return [one for one in listed if self._view.shows_id(one.model.model_key)]

    async def load(self, key: str, ttl: float | None) -> WrapperLoaded:
        async with self._services.remote_loads:
            return await self._load(key, ttl)

    async def _load(self, key: str, ttl: float | None) -> WrapperLoaded:
        found = await self._found(key)
        name = found.model.model_key
        if found.instances:
            return WrapperLoaded("loaded", name, found.instances[0][0], 0.0, None)
        began, seconds = time.monotonic(), self._services.settings.supervisor.load_timeout_seconds
        identifier = name
        if ttl is None:
            told = await self._told("POST", "/api/v1/models/load", {"model": name}, seconds)
            if not isinstance(told, dict) or not isinstance(told.get("instance_id"), str):
                raise BackendFailed(f"LM Studio did not load the model: {_words(told) or 'it does not say why'}.")
            identifier = told["instance_id"]
        else:  # its own path to load takes no `ttl`; a request that has it loaded does
            told = await self._told("POST", *_smallest_question(found, ttl), seconds)
            if not isinstance(told, dict) or "error" in told:
                raise BackendFailed(f"LM Studio did not load the model: {_words(told) or 'it does not say why'}.")
        return WrapperLoaded("loaded", name, identifier, round(time.monotonic() - began, 3), ttl)

    async def unload(self, key: str) -> WrapperUnloaded:
        found = await self._found(key)
        if not found.instances:
            raise NotLoaded(key)
        identifier = found.instances[0][0]
        told = await self._told("POST", "/api/v1/models/unload", {"instance_id": identifier})
        if not isinstance(told, dict) or "instance_id" not in told:
            raise BackendFailed(f"LM Studio did not unload the model: {_words(told) or 'it does not say why'}.")
        return WrapperUnloaded("unloaded", found.model.model_key, identifier)

    async def question(self, path: str, document: dict[str, object], *, vision: bool = False) -> Opening:
        asked = {**document, "model": await self._named(document.get("model"), vision)}

        async def opening(stack: AsyncExitStack, watch: Watch) -> Source:
            watch.phase(Phase.FIRST_BYTE)
            answer = await self._asked(stack, "POST", path, asked)
            watch.phase(Phase.NEXT_BYTE if asked.get("stream") else Phase.FIRST_BYTE)
            return answer

        return opening

    async def _named(self, name: object, vision: bool) -> str:
        """The model to ask. A name that is not listed is LM Studio's to judge, unless some models are hidden here:
        it may answer with another than the one that was named.
        """
        if name is not None and not isinstance(name, str):
            raise InvalidRequest("'model' must be a string.", param="model")
        if not name:
            return wrapper.chosen(await self.models(), vision=vision)
        if self._view.door.models == ALL_MODELS == SCOPE.get():
            return name
        found = await self._found(name)
        return found.instances[0][0] if found.instances else found.model.model_key

    async def _found(self, name: str) -> Listed:
        models = await self.models()
        found = wrapper.named(models, name)
        if found is None:
            raise UnknownModel(name, [one.model.model_key for one in models])
        return found

    async def _told(
        self, method: str, path: str, document: dict[str, object] | None = None, seconds: float | None = None
    ) -> object:
        """Ask something whose answer is JSON. Raises what its refusal means, BackendFailed or BackendTimeout."""
        seconds = seconds or self._settings.answer_seconds
        try:
            async with asyncio.timeout(seconds), AsyncExitStack() as stack:
                raw = await (await self._asked(stack, method, path, document)).whole()
        except TimeoutError:
            raise BackendTimeout(f"LM Studio gave no answer within {seconds:g} seconds.") from None
        try:
            return from_json(raw)
        except ValueError:
            raise BackendFailed("LM Studio's answer is no JSON; is it LM Studio that listens there?") from None

    async def _asked(
        self, stack: AsyncExitStack, method: str, path: str, document: dict[str, object] | None = None
    ) -> Answer:
        line = await stack.enter_async_context(
            self._services.outbound.line(loopback=True, private=True, connect_seconds=self._settings.connect_seconds)
        )
        body = b"" if document is None else strict_json.dumps(document)
        headers = {"Content-Type": "application/json"} if body else {}
        if token := self._settings.lmstudio_token:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        try:
            response = await line.ask(method, self._base + path, headers, body)
        except Denied:
            raise BackendFailed(OWN) from None
        except Unreachable as error:
            raise BackendFailed(f"LM Studio cannot be asked. {error.message}") from None
        stack.callback(response.close)
        answer = Answer(response)
        if response.status != 200:
            raise refusal(response.status, await answer.at_most(MOST_ERROR))
        return answer


def refusal(status: int, body: bytes) -> LlamaRunnerError:
    """What another status than 200 means to our client."""
    try:
        said = _words(from_json(body))
    except ValueError:
        said = None
    words = said or f"LM Studio answered with status {status}."
    match status:
        case 401 | 403:
            return BackendFailed(f"LM Studio does not accept this server (wrapper.lmstudio_token). {words}")
        case 404:
            return Absent(words)
        case 413:
            return PayloadTooLarge(words)
        case 429 | 503:
            return ServiceUnavailable(words)
        case 504:
            return BackendTimeout(words)
        case _ if 400 <= status < 500:
            return InvalidRequest(words)
    return BackendFailed(words)


def _words(told: Any) -> str | None:
    """What it says is wrong, in any of its ways."""
    error = told.get("error") if isinstance(told, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    return words[:SHOWN] if isinstance(words, str) and words else None


def _smallest_question(found: Listed, ttl: float) -> tuple[str, dict[str, object]]:
    """The least that has a model loaded."""
    of_model: dict[str, object] = {"model": found.model.model_key, "ttl": ttl}
    if found.model.type == "embedding":
        return "/v1/embeddings", {**of_model, "input": "hello"}
    return "/v1/chat/completions", {**of_model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
