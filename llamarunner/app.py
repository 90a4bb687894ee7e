"""The wiring: builds each object once, opens in order, closes in reverse.

Enter: doors' sockets → client → catalog → supervisor → library → webhooks → chats, toolboxes → doors → preload → wait
for the stop signal.
Leave: the doors drain → the supervisor ends every child → the doors close → toolboxes and the file of chats close → the
webhooks keep what is left to tell → pulls break off → the client closes.
A second signal skips the waits. A port already taken fails before anything is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from llamarunner import __version__, logs
from llamarunner.catalog import Catalog, remarks
from llamarunner.config import Door, Loaded, Settings, load
from llamarunner.errors import ConfigError, LlamaRunnerError, ModelNotFound
from llamarunner.events import Bus, ServerStarted, ServerStopping
from llamarunner.fleet.child import Probe
from llamarunner.fleet.launch import Endpoint
from llamarunner.fleet.launcher import Launcher
from llamarunner.fleet.lease import Manner
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.library import Library
from llamarunner.server import crowd, listener
from llamarunner.server.client import BrokenOff, CannotConnect, Client
from llamarunner.server.drain import Drain
from llamarunner.server.resolve import native_task
from llamarunner.server.services import Services

log = logging.getLogger("llamarunner")

T = TypeVar("T")

PROBE_SECONDS = 1.0
FOLLOW_SECONDS = 1.0
PRELOADED = Manner(ttl=math.inf)  # idleness does not end it, but others may take its place
LAST_EVENT_SECONDS = 2.0  # for the last events of streams whose time is up
ADVICE = {
    errno.EADDRINUSE: "Stop what uses it (another LlamaRunner, Ollama or LM Studio?) or set another port under proxies "
    "in the settings.",
    errno.EADDRNOTAVAIL: "No network of this machine has that address; set another host under proxies in the settings.",
    errno.EACCES: "Ports below 1024 need more rights; set another port under proxies in the settings.",
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PortTaken(LlamaRunnerError):
    """A door could not be opened, since something else listens there or we may not."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server whose doors are open."""

    services: Services
    launcher: Launcher
    opened: Settings  # with which the doors were opened
    urls: dict[str, str]  # door → base URL


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where there is one (a third less time per streamed event), else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def serve(loaded: Loaded, announce: Callable[[Running], None]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises PortTaken before anything is started."""
    stamp = _stamp(loaded.source) if loaded.source else None
    crowd.raise_descriptor_limit()
    crowd.quiet_exhaustion(asyncio.get_running_loop())
    with _signals() as signals:
        async with running(loaded.settings) as house:
            announce(house)
            _warn_of_open_doors(loaded.settings)
            _warn_of_settings(loaded.settings, house.services.catalog)
            async with asyncio.TaskGroup() as group:
                work = [_watch_models(house.services), _preload(house.services), _ask_runtime(house.launcher)]
                work += [_follow(house, loaded.source, stamp)] if loaded.source else []
                chores = [group.create_task(chore) for chore in work]
                await signals.get()
                log.info("stopping; once more skips the wait")
                house.services.bus.publish(ServerStopping(__version__))
                chores.append(group.create_task(_hurry(signals, house.services)))
                await _drain(house.services)
                await house.services.supervisor.close()
                for chore in chores:
                    chore.cancel()
    return 0


def _warn_of_open_doors(settings: Settings) -> None:
    for name, door in settings.proxies.doors():
        if door.local or door.api_keys:
            continue
        log.warning("the %s door is open to the network on %s and asks for no API key", name, door.host)
        if door.allow_management == "always":
            log.warning("anyone who reaches the %s door may manage models and webhooks (allow_management)", name)
        else:
            log.warning("so nothing can be managed through the %s door; api_keys for it change both", name)


def _warn_of_settings(settings: Settings, catalog: Catalog) -> None:
    for remark in remarks(settings, catalog):
        log.warning("%s", remark)


async def serve_and_leave(loaded: Loaded, announce: Callable[[Running], None]) -> NoReturn:
    """Serve, and end the process: a thread that waits for a slow disk or runtime must not hold the exit up."""
    code = await serve(loaded, announce)
    logging.shutdown()
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.flush()
    os._exit(code)


async def reload(house: Running, source: Path) -> None:
    """Take over the settings file as it is now. A wrong one is reported, and the old settings stay whole.

    Requests under way go on. Models whose settings changed are unloaded once their callers are done. What cannot change
    while the server runs, the doors' addresses, is reported.
    """
    try:
        settings = (await asyncio.to_thread(load, source)).settings
        house.launcher.configure(settings)
    except ConfigError as error:
        log.error("the changed settings are wrong, the old ones stay:\n%s", error.message)
        return
    except Exception:  # a mistake of ours in reading them must not end the house
        log.exception("the changed settings could not be read, the old ones stay")
        return
    logs.configure(settings.logging)
    house.services.configure(settings)
    house.services.supervisor.configure(settings)
    await asyncio.to_thread(house.services.catalog.configure, settings)
    _warn_of_settings(settings, house.services.catalog)
    if _addresses(house.opened) != _addresses(settings):
        log.warning("the doors' addresses changed in the settings; they take effect at the next start")
    log.info("the changed settings are in force")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Open everything in order; leaving closes it in reverse."""
    async with AsyncExitStack() as stack:
        sockets = {name: stack.enter_context(_bound(door)) for name, door in settings.proxies.doors()}
        client = await stack.enter_async_context(Client())
        catalog = Catalog(settings)
        await asyncio.to_thread(catalog.scan)
        launcher = Launcher(settings)
        bus = Bus()
        supervisor = await stack.enter_async_context(Supervisor(settings, launcher, prober(client), bus))
        services = Services(
            settings, catalog, supervisor, bus, client, Drain(), __version__, time.monotonic(), launcher.known
        )
        services.library = await stack.enter_async_context(Library(catalog, services.outbound, services.reconcile))
        await stack.enter_async_context(services.webhooks)
        await stack.enter_async_context(services.chats)
        await stack.enter_async_context(services.toolboxes)
        stack.callback(services.spool.close)
        await asyncio.to_thread(services.spool.sweep)
        urls = {}
        for name, door in settings.proxies.doors():
            urls[name] = await stack.enter_async_context(listener.opened(door, name, services, sockets[name]))
        bus.publish(ServerStarted(__version__, urls))
        yield Running(services, launcher, settings, urls)


def prober(client: Client) -> Probe:
    """Make the function that asks a child whether it answers 200 on a path; it takes at most a second."""

    async def probe(endpoint: Endpoint, path: str) -> bool:
        try:
            async with asyncio.timeout(PROBE_SECONDS), await client.request("GET", endpoint, path) as exchange:
                await exchange.whole()
                return exchange.status == 200
        except (CannotConnect, BrokenOff, TimeoutError):
            return False

    return probe


@contextmanager
def _bound(door: Door) -> Iterator[list[socket.socket]]:
    """Bind a door's addresses. Raises PortTaken with what to do about it."""
    sockets: list[socket.socket] = []
    try:
        for host, port in door.addresses:
            try:
                sockets += listener.bind(host, port)
            except OSError as error:
                advice = ADVICE.get(error.errno or 0, "Set another host or port under proxies in the settings.")
                reason = error.strerror or str(error)
                raise PortTaken(f"Cannot listen on {host}:{port}: {reason}. {advice}") from error
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


async def _follow(house: Running, source: Path, seen: object) -> None:
    """Reload the settings when their file is no longer the one `seen`. A look a second also sees what systems hide:
    network folders, files behind links, a change in the moment before.
    """
    while True:
        if (now := _stamp(source)) != seen:
            seen = now
            if now is None:
                log.warning("the settings file is gone; its settings stay in force")
            else:
                await reload(house, source)
        await asyncio.sleep(FOLLOW_SECONDS)


def _stamp(file: Path) -> object:
    """What differs when a file was changed; None while it is not there, or is no ordinary file."""
    try:
        state = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _addresses(settings: Settings) -> list[tuple[str, str, int]]:
    return [(name, *address) for name, door in settings.proxies.doors() for address in door.addresses]


async def _watch_models(services: Services) -> None:
    """Follow the model folders, and unload what is no longer what was loaded."""
    await services.catalog.watch(services.reconcile)


async def _preload(services: Services) -> None:
    """Load the models that the settings name; one that fails is reported, the others go on."""

    async def load(name: str) -> None:
        try:
            entry = services.catalog.find(name)
            await services.supervisor.start(entry, native_task(entry), manner=PRELOADED)
        except ModelNotFound:
            pass  # which is told with the remarks on the settings
        except LlamaRunnerError as error:
            log.error("preload of %s failed: %s", name, error.message)

    await asyncio.gather(*map(load, services.settings.supervisor.preload))


async def _ask_runtime(launcher: Launcher) -> None:
    """Learn what the runtime can before the first request needs to know."""
    with contextlib.suppress(LlamaRunnerError, OSError):  # the first request will tell
        await asyncio.to_thread(launcher.version)


async def _drain(services: Services) -> None:
    """Let the exchanges under way finish, for as long as the settings allow; then end those that remain."""
    services.drain.begin()
    if len(services.drain):
        log.info("%d answers may finish for %g s", len(services.drain), services.settings.server.drain_seconds)
    await services.drain.idle(services.settings.server.drain_seconds)
    services.drain.expire()
    await services.drain.idle(LAST_EVENT_SECONDS)


async def _hurry(signals: asyncio.Queue[int], services: Services) -> None:
    """On another signal end everything now."""
    while True:
        await signals.get()
        services.drain.expire()
        services.supervisor.hurry()


@contextmanager
def _signals() -> Iterator[asyncio.Queue[int]]:
    """Put the stop signals into a queue instead of dying of them."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in SIGNALS:
        signal.signal(number, lambda got, _: loop.call_soon_threadsafe(queue.put_nowait, got))
    try:
        yield queue
    finally:
        for number in SIGNALS:  # all is closed by now; an impatient signal must not spoil the exit code
            signal.signal(number, signal.SIG_IGN)
