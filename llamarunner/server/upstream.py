"""The far side of the relay: one request to a model's process, and what can go wrong there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import constraints, images, llama_cpp, strict_json
from llamarunner.errors import BackendFailed, BackendTimeout, LlamaRunnerError
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import AS_IT_IS, Lease, Manner
from llamarunner.outbound import Outbound
from llamarunner.server import remote_images
from llamarunner.server.client import BrokenOff, CannotConnect, Client, Exchange
from llamarunner.server.services import Services
from llamarunner.server.tap import Asked
from llamarunner.server.watch import Phase, Watch

MAX_ERROR_BODY = 2**16


class Unreachable(BackendFailed):
    """No connection could be made, so nothing was sent and the request may be tried again."""


class Body:
    """What a model's process is asked, made safe for it: there is no other way to ask.

    Grammars have a size that llama.cpp survives. Images that are named by URL are fetched by `ask` or refused; the
    process would follow the URL itself.
    """

    __slots__ = ("_loopback", "_remote", "data")

    def __init__(self, document: Mapping[str, object], raw: bytes | None = None, *, loopback: bool = False) -> None:
        """Only bytes are kept of the document; `raw` are its own, if it is as it came.

        `loopback` is whether its images may come from this machine. Raises InvalidRequest that names the field.
        """
        constraints.check_constraints(document)
        self._remote = bool(images.remote_images(document))
        self._loopback = loopback
        self.data = strict_json.dumps(document) if raw is None else raw

    async def whole(self, outbound: Outbound) -> bytes:
        """Fetch what is missing. Raises InvalidRequest that names the field."""
        if not self._remote:
            return self.data
        document = json.loads(self.data)
        await remote_images.inline(document, outbound, loopback=self._loopback)
        return strict_json.dumps(document)


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask of which model."""

    entry: ModelEntry
    task: Task
    path: str
    body: Body
    manner: Manner = AS_IT_IS


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer whose status is good, and the lease that holds it."""

    lease: Lease
    exchange: Exchange
    call: Call

    @property
    def content_type(self) -> str:
        return self.exchange.content_type

    async def some(self) -> bytes:
        """Read what has arrived; empty at the end. Raises BackendFailed if the answer breaks off."""
        try:
            return await self.exchange.some()
        except BrokenOff:
            raise await _post_mortem(self.lease, self.call.entry) from None

    async def whole(self) -> bytes:
        """Read all. Raises BackendFailed if the answer breaks off."""
        try:
            return await self.exchange.whole()
        except BrokenOff:
            raise await _post_mortem(self.lease, self.call.entry) from None


async def ask(stack: AsyncExitStack, services: Services, call: Call, watch: Watch) -> Answer:
    """Fetch the call's images, lease the model and send the request; the answer lives as long as the stack.

    A process that cannot be reached at all is left for a fresh lease, once. Raises what the model's refusal means,
    BackendFailed, or what the supervisor raises.
    """
    watch.phase(Phase.FETCH)
    body = await call.body.whole(services.outbound)
    try:
        return await _ask_once(stack, services, call, body, watch)
    except Unreachable:
        await stack.aclose()
        return await _ask_once(stack, services, call, body, watch)


async def ask_more(client: Client, answer: Answer, path: str, body: bytes) -> bytes | None:
    """Ask the same process something else in the same lease, once the answer is read; None if it does not tell."""
    try:
        async with await client.request("POST", answer.lease.endpoint, path, body) as exchange:
            return await exchange.whole() if exchange.status == 200 else None
    except (CannotConnect, BrokenOff):
        return None


async def _ask_once(stack: AsyncExitStack, services: Services, call: Call, body: bytes, watch: Watch) -> Answer:
    watch.phase(Phase.LEASE)
    lease = await stack.enter_async_context(services.supervisor.lease(call.entry, call.task, call.manner))
    stack.callback(_report_silence, lease, watch)
    watch.phase(Phase.FIRST_BYTE)
    if call.task is Task.GENERATE:
        services.tap.tell(Asked(call.entry, lease.endpoint, call.path, body))
    exchange = await stack.enter_async_context(await _send(services.client, lease, call, body))
    if exchange.status != 200:
        said = (await _read_error(exchange)).replace(str(call.entry.path.parent).encode(), b"[path]")
        raise llama_cpp.refusal(exchange.status, said)
    return Answer(lease, exchange, call)


async def _send(client: Client, lease: Lease, call: Call, body: bytes) -> Exchange:
    try:
        return await client.request("POST", lease.endpoint, call.path, body)
    except CannotConnect:
        cause = await lease.autopsy()
        if cause is None:
            lease.suspect()
            cause = await lease.autopsy()
        raise Unreachable(_sentence(call.entry, cause or "its process accepts no connections")) from None
    except BrokenOff:
        raise await _post_mortem(lease, call.entry) from None


def _report_silence(lease: Lease, watch: Watch) -> None:
    if isinstance(watch.verdict, BackendTimeout):
        lease.suspect()


async def _read_error(exchange: Exchange) -> bytes:
    body = b""
    try:
        while len(body) < MAX_ERROR_BODY and (piece := await exchange.some()):
            body += piece
    except BrokenOff:
        return b""
    return body


async def _post_mortem(lease: Lease, entry: ModelEntry) -> LlamaRunnerError:
    cause = await lease.autopsy()
    return BackendFailed(_sentence(entry, cause or "its process broke off the answer"))


def _sentence(entry: ModelEntry, cause: str) -> str:
    return f"The model '{entry.id}' failed while answering: {cause}."
