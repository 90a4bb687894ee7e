"""The far side of the relay: one request to a model's process, and what can go wrong there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import llama_cpp
from llamarunner.errors import BackendFailed, BackendTimeout, LlamaRunnerError
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import AS_IT_IS, Lease, Manner
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.server.client import BrokenOff, CannotConnect, Client, Exchange
from llamarunner.server.watch import Phase, Watch

MAX_ERROR_BODY = 2**16


class Unreachable(BackendFailed):
    """No connection could be made, so nothing was sent and the request may be tried again."""


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask of which model."""

    entry: ModelEntry
    task: Task
    path: str
    body: bytes
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


async def ask(stack: AsyncExitStack, supervisor: Supervisor, client: Client, call: Call, watch: Watch) -> Answer:
    """Lease the model and send the request; the answer lives as long as the stack.

    A process that cannot be reached at all is left for a fresh lease, once. Raises what the model's refusal means,
    BackendFailed, or what the supervisor raises.
    """
    try:
        return await _ask_once(stack, supervisor, client, call, watch)
    except Unreachable:
        await stack.aclose()
        return await _ask_once(stack, supervisor, client, call, watch)


async def ask_more(client: Client, answer: Answer, path: str, body: bytes) -> bytes | None:
    """Ask the same process something else in the same lease, once the answer is read; None if it does not tell."""
    try:
        async with await client.request("POST", answer.lease.endpoint, path, body) as exchange:
            return await exchange.whole() if exchange.status == 200 else None
    except (CannotConnect, BrokenOff):
        return None


async def _ask_once(stack: AsyncExitStack, supervisor: Supervisor, client: Client, call: Call, watch: Watch) -> Answer:
    watch.phase(Phase.LEASE)
    lease = await stack.enter_async_context(supervisor.lease(call.entry, call.task, call.manner))
    stack.callback(_report_silence, lease, watch)
    watch.phase(Phase.FIRST_BYTE)
    exchange = await stack.enter_async_context(await _send(client, lease, call))
    if exchange.status != 200:
        said = (await _read_error(exchange)).replace(str(call.entry.path.parent).encode(), b"[path]")
        raise llama_cpp.refusal(exchange.status, said)
    return Answer(lease, exchange, call)


async def _send(client: Client, lease: Lease, call: Call) -> Exchange:
    try:
        return await client.request("POST", lease.endpoint, call.path, call.body)
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
