"""What every handler may use, and the typed keys under which an application carries it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from aiohttp import web

from llamarunner.catalog import Catalog, ModelEntry
from llamarunner.chats import Chats
from llamarunner.config import NO_LIMITS, ApiKey, Door, Globs, Settings
from llamarunner.config.permissions import EVERYTHING, Permissions
from llamarunner.dialects.ollama import names
from llamarunner.errors import Forbidden, ModelNotFound, RateLimited, Unauthorized, WrongKey
from llamarunner.events import Bus
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.library import Library
from llamarunner.limits import Account, Limiter, Ticket
from llamarunner.outbound import Outbound
from llamarunner.server.admission import Admission, Headers
from llamarunner.server.children import Children
from llamarunner.server.client import Client
from llamarunner.server.crowd import Crowd, descriptor_limit
from llamarunner.server.drain import Drain
from llamarunner.server.figures import Figures
from llamarunner.server.forwarded import Origins, budget_of, is_loopback, plain_address
from llamarunner.server.labels import Labels
from llamarunner.server.metrics import Metrics
from llamarunner.server.record import Records
from llamarunner.server.sdk_guests import Guests
from llamarunner.server.spool import Spool
from llamarunner.server.tap import Tap
from llamarunner.toolbox import Toolboxes
from llamarunner.webhooks import Asker, Webhooks


@dataclass(slots=True)
class Services:
    """The house as the handlers see it; one object, shared by all doors. Only `configure` changes it."""

    settings: Settings
    catalog: Catalog
    supervisor: Supervisor
    bus: Bus
    client: Client  # for requests to models' processes
    drain: Drain
    version: str
    started_at: float  # time.monotonic() when the server started
    runtime: Callable[[], tuple[str | None, str | None]] = lambda: (None, None)  # kind and version, as far as known
    views: list[View] = field(default_factory=list)
    remote_loads: asyncio.Lock = field(default_factory=asyncio.Lock)  # LM Studio loads once more what is loading
    figures: Figures = field(init=False)
    outbound: Outbound = field(init=False)
    webhooks: Webhooks = field(init=False)  # opened by whoever opens the doors
    chats: Chats = field(init=False)  # opened by whoever opens the doors
    toolboxes: Toolboxes = field(init=False)  # the same
    metrics: Metrics = field(init=False)
    records: Records = field(init=False)
    children: Children = field(init=False)
    spool: Spool = field(init=False)
    crowd: Crowd = field(init=False)
    tap: Tap = field(default_factory=Tap)
    library: Library = field(init=False)  # put there and opened by whoever opens the doors

    def __post_init__(self) -> None:
        self.figures = Figures(self.client)
        self.outbound = Outbound(self.settings.outbound, self.own_ports)
        self.webhooks = Webhooks(self.settings.webhooks, self.outbound, self.bus)
        self.chats = Chats(self.settings.chats)
        self.toolboxes = Toolboxes(self.settings.mcp, self.outbound)
        self.metrics = Metrics(self.version, self.catalog.known)
        self.bus.listen(self.metrics.hear)
        self.records = Records(self.bus, self.metrics)
        self.children = Children(self.supervisor, self.client)
        self.spool = Spool(self.settings.audio.upload_folder)
        self.crowd = Crowd(self.settings.server.connections, descriptor_limit())

    @property
    def uptime(self) -> int:
        """Whole seconds since the start."""
        return int(time.monotonic() - self.started_at)

    def reconcile(self) -> None:
        """Unload what is no longer what was loaded."""
        self.supervisor.reconcile(self.catalog.known)

    def own_ports(self) -> set[int]:
        """Where the doors and the models' processes listen now."""
        return self.supervisor.ports() | {port for view in self.views for port in view.ports}

    def configure(self, settings: Settings) -> None:
        """Take over new settings, for the requests to come."""
        self.settings = settings
        self.outbound.settings = settings.outbound
        self.webhooks.configure(settings.webhooks)
        self.chats.configure(settings.chats)
        self.toolboxes.configure(settings.mcp)
        self.crowd.rules = settings.server.connections
        self.spool.configure(settings.audio.upload_folder)
        for view in self.views:
            view.configure(getattr(settings.proxies, view.name))


class View:
    """One door: its settings, its rules, and the part of the catalog that it shows."""

    def __init__(self, name: str, door: Door, services: Services) -> None:
        self.name = name
        self.services = services
        self.ports: list[int] = []  # on which it listens, its own first
        self._local = door.local  # as it was opened, whatever the settings say later
        self.limiter = Limiter()
        self.channels = Limiter()  # of the open websockets
        self.guesses = Limiter()
        self.guests = Guests()
        self.labels = Labels()
        services.views.append(self)
        self.configure(door)

    @property
    def port(self) -> int | None:
        """The port on which it listens."""
        return self.ports[0] if self.ports else None

    def configure(self, door: Door) -> None:
        self.door = door
        self.rules = Admission(door, desktop=self.name == "ollama")
        self.origins = Origins(door.trusted_proxies)

    def account(self, address: str, key: ApiKey | None = None) -> Account:
        """Whose budget a request is counted in, and what it allows: the key's, if it has one, or the address's."""
        if key is not None and key.rate_limits is not None:
            return Account(f"key {key.bearer}", key.rate_limits)
        limits = self.door.rate_limits
        exempt = limits.exempt_loopback and is_loopback(address)
        return Account(budget_of(address), NO_LIMITS if exempt else limits)

    def way_out(self, address: str, account: Account) -> str:
        """Tell who asks from this machine how its owner lifts the limits that stopped it; others nothing."""
        if account.limits is not self.door.rate_limits or not is_loopback(address):
            return ""
        return f' (proxies.{self.name}.rate_limits; "exempt_loopback": true frees this machine)'

    def crowding(self, peer: str) -> str | None:
        """For whom a connection is counted, by its peer's address; None for this machine and for trusted proxies."""
        address = plain_address(peer)
        if address is None or is_loopback(address) or self.origins.trusts(address):
            return None
        return budget_of(address)

    def check_key(self, address: str, headers: Headers) -> ApiKey | None:
        """Find the key that a request bears, if this door asks for one; an address has few guesses.

        Raises Unauthorized, InvalidRequest, or RateLimited. After too many wrong keys the right one is refused too:
        answers that tell it from them would let it be guessed.
        """
        if not self.door.api_keys:
            return None
        guesses, now = Account(budget_of(address), GUESSES), time.monotonic_ns()
        try:
            self.guesses.check(guesses, now)
        except RateLimited as error:
            error.limit = "wrong_keys"
            error.message = f"Too many wrong API keys came from this address. Try again in {error.retry_after} seconds."
            raise
        try:
            return self.rules.check_key(headers)
        except WrongKey:
            self.guesses.admit(guesses, now).release()
            raise
        except Unauthorized:  # none was given, which is no guess, but a request
            self.limiter.admit(self.account(address), now).release()
            raise

    def recognise(self, address: str, headers: Headers) -> Account:
        """Check the key of a request and let it see the key's models; tell whose budget it is counted in.

        Raises as `check_key` does.
        """
        return self._let_in(address, self.check_key(address, headers))

    def recognise_again(self, address: str, headers: Headers) -> Account:
        """The same for a key that was right before: if it no longer is, that is no guess.

        Raises Unauthorized or InvalidRequest.
        """
        return self._let_in(address, self.rules.check_key(headers) if self.door.api_keys else None)

    def _let_in(self, address: str, key: ApiKey | None) -> Account:
        SCOPE.set(ALL_MODELS if key is None else key.models)
        PERMISSIONS.set(EVERYTHING if key is None or key.permissions is None else key.permissions)
        return self.account(address, key)

    def asker(self, client: str, headers: Headers) -> Asker:
        """Who asks for webhooks, and the models that it may see; `client` is an address. Raises Unauthorized."""
        key = self.rules.check_key(headers)
        globs = (self.door.models, ALL_MODELS if key is None else key.models)
        name = f"{self.name} {key.bearer}" if key else self.name
        scope = tuple(one for one in globs if "*" not in one)
        return Asker(name, scope, budget_of(client), self.is_local(client))

    def owner(self, headers: Headers) -> str:
        """Whose chats a request may keep and go on with: its key's, whichever door has it. Raises Unauthorized."""
        key = self.rules.check_key(headers)
        return f"key {key.bearer}" if key else ""

    def is_local(self, client: str) -> bool:
        """Tell whether a client is a program of this machine, as far as can be known; `client` is an address."""
        return self._local and is_loopback(client)

    def may_manage(self, client: str) -> bool:
        """Tell whether a client may change the machine, and see its inside; `client` is an address.

        Behind a reverse proxy on this machine a client may come from anywhere. A key may lack the permission.
        """
        if "manage" not in PERMISSIONS.get():
            return False
        allowed = {"always": True, "never": False, "auto": self.is_local(client) or bool(self.door.api_keys)}
        return allowed[self.door.allow_management]

    def check_management(self, client: str) -> None:
        """Refuse what changes the machine where anybody could ask for it; `client` is an address. Raises Forbidden."""
        if "manage" not in PERMISSIONS.get():
            raise Forbidden("This API key has no permission to manage anything; the owner can give it.")
        if not self.may_manage(client):
            raise Forbidden(
                "Nothing can be managed through this door; the owner can give it api_keys, or set allow_management."
            )

    def may_use_plugins(self, client: str) -> bool:
        """Tell whether a client may use the MCP servers of the owner's mcp.json; `client` is an address.

        Who cannot be known by a key must be on this machine.
        """
        return "plugins" in PERMISSIONS.get() and (bool(self.door.api_keys) or self.is_local(client))

    def shows(self, entry: ModelEntry) -> bool:
        """Tell whether a model is to be seen here, by the request that is being answered."""
        return self.shows_id(entry.id)

    def shows_id(self, model_id: str) -> bool:
        """Tell the same of a model that may no longer be in the catalog."""
        folded = model_id.casefold()
        return _matches(folded, self.door.models) and _matches(folded, SCOPE.get())

    @property
    def entries(self) -> list[ModelEntry]:
        """The usable models behind this door, in the catalog's order."""
        return [entry for entry in self.services.catalog.entries if not entry.error and self.shows(entry)]

    def instances(self, entry: ModelEntry) -> list[ModelEntry]:
        """The instances of a model that run or will, those that are leaving included."""
        return [replace(entry, instance=one) for one in self.services.supervisor.instances(entry, leaving=True)]

    def find_instance(self, name: str) -> ModelEntry | None:
        """Find an instance that takes callers by exactly its id, the model's, or `id:2`, `id:3` …, or by its label."""
        if (labelled := self.labels.find(name)) and self.shows(labelled.entry):
            return labelled.entry
        base, _, number = name.rpartition(":")
        for model_id, text in ((name, "1"), (base, number)):
            entry = self.services.catalog.known(model_id) if text.isascii() and text.isdecimal() else None
            if entry and self.shows(entry):
                for one in self.services.supervisor.instances(entry):
                    if (instance := replace(entry, instance=one)).instance_id == name:
                        return instance
        return None

    def another(self, entry: ModelEntry) -> ModelEntry:
        """The first instance of a model that does not run and whose id names no other model."""
        taken = self.services.supervisor.instances(entry, leaving=True)
        numbered = (replace(entry, instance=number) for number in itertools.count(1) if number not in taken)
        return next(one for one in numbered if one.instance == 1 or not self.services.catalog.knows(one.instance_id))

    def at_hand(self, entry: ModelEntry) -> ModelEntry:
        """The instance that serves those who name only the model: the first that takes callers."""
        if entry.instance > 1:
            return entry
        return replace(entry, instance=next(iter(self.services.supervisor.instances(entry)), 1))

    def meant(self, entry: ModelEntry, name: str) -> ModelEntry:
        """What an order means that has found an entry by a name: the instance of that id, or else all of the model."""
        return entry if entry.instance_id == name else replace(entry, instance=1)

    def find(self, name: str) -> ModelEntry:
        """Find a model by any of its names, or an instance of it by its id; on Ollama's door also by the longer forms
        that its clients know.

        The instance that is meant is the one that serves a request. Raises ModelNotFound, also for a model that this
        door hides.
        """
        if instance := self.find_instance(name):
            return instance
        parsed = names.parse(name.removesuffix(":local")) if self.name == "ollama" else None
        for spelling in (name, parsed.short) if parsed else (name,):
            try:
                entry = self.services.catalog.find(spelling)
            except ModelNotFound:
                continue
            if self.shows(entry):
                return self.at_hand(entry)
        raise ModelNotFound(name[:200], tuple(entry.id for entry in self.entries))


def _matches(model_id: str, globs: Globs) -> bool:
    return any(glob == "*" or fnmatchcase(model_id, glob.casefold()) for glob in globs)


ALL_MODELS: Globs = ("*",)
GUESSES = NO_LIMITS.model_copy(update={"requests_per_minute": 10})  # of wrong keys, for each address
SCOPE: ContextVar[Globs] = ContextVar("models that the request's key may use", default=ALL_MODELS)
PERMISSIONS: ContextVar[Permissions] = ContextVar("what the request's key may do", default=EVERYTHING)
VIEW = web.AppKey("view", View)
REQUEST_ID = web.RequestKey("request_id", str)
CLIENT = web.RequestKey("client", str)  # its address
ACCOUNT = web.RequestKey("account", Account)
TICKET = web.RequestKey("ticket", Ticket)
