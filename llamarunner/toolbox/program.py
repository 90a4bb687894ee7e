"""Servers that are programs: a child process that speaks lines of JSON, and is ended with all that it started.

A child leads a process group of its own and bears the mark by which the keeper finds what a vanished server left. It
sees of our environment what programs need to run at all, and what its owner wrote for it. What it prints on stderr is
drained, and the last of it kept for the log.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, cast

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from llamarunner.fleet import group
from llamarunner.fleet.keeping import MARKER
from llamarunner.fleet.output import Output, Pipes
from llamarunner.toolbox.servers import Program
from llamarunner.toolbox.wire import MESSAGE_BYTES, Counted, Wire

if TYPE_CHECKING:  # private there
    from mcp.client._transport import TransportStreams

_POSIX = ("PATH", "HOME")
_WINDOWS = (
    *("PATH", "PATHEXT", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "USERPROFILE", "HOMEDRIVE", "HOMEPATH"),
    *("APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "TEMP", "TMP"),
)
INHERITED = _WINDOWS if sys.platform == "win32" else _POSIX
GRACE_SECONDS = 1.0  # for the end of its input, and again for TERM
REAP_SECONDS = 5.0
REST_SECONDS = 0.2  # for what is still in its pipes
CHUNK = 65_536


class Process(SubprocessStreamProtocol):
    """The pipes of a child, and its end, which counts even while somebody else holds the pipes."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(limit=MESSAGE_BYTES, loop=loop)
        self.exited: asyncio.Future[None] = loop.create_future()

    def process_exited(self) -> None:
        super().process_exited()
        if not self.exited.done():
            self.exited.set_result(None)


@asynccontextmanager
async def stdio(program: Program, wire: Wire, output: Output) -> AsyncIterator[TransportStreams]:
    """Start the program and speak to it; it has ended when this is left.

    Raises OSError or ValueError if it cannot be started.
    """
    loop = asyncio.get_running_loop()
    env = {name: value for name in INHERITED if (value := os.environ.get(name))} | dict(program.env)
    found = shutil.which(program.command, path=env.get("PATH")) or program.command
    transport, process = await loop.subprocess_exec(
        Process,
        *(found, *program.args),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env={**env, **MARKER},
        cwd=program.folder,
        **group.spawn_options(),
    )
    inbound, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outbound = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with asyncio.TaskGroup() as tasks:
            pumps = [
                tasks.create_task(_read(cast(asyncio.StreamReader, process.stdout), inbound, wire)),
                tasks.create_task(_write(cast(asyncio.StreamWriter, process.stdin), outbound)),
                tasks.create_task(_drain(cast(asyncio.StreamReader, process.stderr), output)),
            ]
            watch = tasks.create_task(_watch(transport.get_pid(), process, wire))
            try:
                yield Counted(read, wire), write
            finally:
                if any(pump.done() for pump in pumps):  # pipes are closed a little before the end is told
                    await asyncio.wait({process.exited}, timeout=REST_SECONDS)
                wire.exited = transport.get_returncode()
                write.close()
                read.close()
                await _end(transport, process)
                await asyncio.wait(pumps, timeout=REST_SECONDS)
                for pump in (watch, *pumps):
                    pump.cancel()
    finally:
        for stream in (inbound, outbound):
            stream.close()
        transport.close()


async def _end(transport: asyncio.SubprocessTransport, process: Process) -> None:
    """End the child: the end of its input (MCP's way), TERM to its group, KILL to its group, each after a grace."""
    leader = transport.get_pid()
    try:
        cast(asyncio.StreamWriter, process.stdin).close()
        await asyncio.wait({process.exited}, timeout=GRACE_SECONDS)
        group.end(leader, hard=False)
        await asyncio.wait({process.exited}, timeout=GRACE_SECONDS)
    finally:
        group.end(leader, hard=True)
        await asyncio.wait({process.exited}, timeout=REAP_SECONDS)


async def _watch(leader: int, process: Process, wire: Wire) -> None:
    """When the program ends, end what it started, which would keep its pipes open."""
    await asyncio.wait({process.exited})
    group.end(leader, hard=True)
    await asyncio.sleep(GRACE_SECONDS)  # for the last of its output
    wire.end()


async def _read(
    stdout: asyncio.StreamReader, inbound: MemoryObjectSendStream[SessionMessage | Exception], wire: Wire
) -> None:
    """Pass the messages on; a line that is none is passed over, as programs print greetings."""
    with inbound, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        try:
            while (line := await stdout.readline()) and wire.count(len(line)):
                with suppress(ValueError):
                    await inbound.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
        except ValueError:  # as `readline` says that there is no end of a line
            wire.lose(f"It sent a message of more than {MESSAGE_BYTES >> 10} KiB.")
    while await stdout.read(CHUNK):  # so that it can go on to its end
        pass


async def _write(stdin: asyncio.StreamWriter, outbound: MemoryObjectReceiveStream[SessionMessage]) -> None:
    with outbound, suppress(OSError):
        async for message in outbound:
            stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()


async def _drain(stderr: asyncio.StreamReader, output: Output) -> None:
    pipes = Pipes()
    while data := await stderr.read(CHUNK):
        output.add(pipes.feed(0, data))
    output.add(pipes.end(0))
