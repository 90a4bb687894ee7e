"""What every handler may use, and the typed keys under which an application carries it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from aiohttp import web

from llamarunner.catalog import Catalog, ModelEntry
from llamarunner.config import NO_LIMITS, Door, Settings
from llamarunner.errors import ModelNotFound
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.limits import Account, Limiter, Ticket
from llamarunner.server.admission import Admission
from llamarunner.server.client import Client
from llamarunner.server.drain import Drain
from llamarunner.server.forwarded import Origins, budget_of, is_loopback


@dataclass(slots=True)
class Services:
    """The house as the handlers see it; one object, shared by all doors. Only `configure` changes it."""

    settings: Settings
    catalog: Catalog
    supervisor: Supervisor
    client: Client  # for requests to models' processes
    drain: Drain
    version: str
    started_at: float  # time.monotonic() when the server started
    views: list[View] = field(default_factory=list)

    @property
    def uptime(self) -> int:
        """Whole seconds since the start."""
        return int(time.monotonic() - self.started_at)

    def configure(self, settings: Settings) -> None:
        """Take over new settings, for the requests to come."""
        self.settings = settings
        for view in self.views:
            view.configure(getattr(settings.proxies, view.name))


class View:
    """One door: its settings, its rules, and the part of the catalog that it shows."""

    def __init__(self, name: str, door: Door, services: Services) -> None:
        self.name = name
        self.services = services
        self.limiter = Limiter()
        services.views.append(self)
        self.configure(door)

    def configure(self, door: Door) -> None:
        self.door = door
        self.rules = Admission(door)
        self.origins = Origins(door.trusted_proxies)

    def account(self, address: str) -> Account:
        """Whose budget the requests from an address are counted in, and what it allows."""
        limits = self.door.rate_limits
        exempt = limits.exempt_loopback and is_loopback(address)
        return Account(budget_of(address), NO_LIMITS if exempt else limits)

    def shows(self, entry: ModelEntry) -> bool:
        model_id = entry.id.casefold()
        return any(glob == "*" or fnmatchcase(model_id, glob.casefold()) for glob in self.door.models)

    @property
    def entries(self) -> list[ModelEntry]:
        """The usable models behind this door, in the catalog's order."""
        return [entry for entry in self.services.catalog.entries if not entry.error and self.shows(entry)]

    def find(self, name: str) -> ModelEntry:
        """Find a model by any of its names. Raises ModelNotFound, also for a model that this door hides."""
        try:
            entry = self.services.catalog.find(name)
        except ModelNotFound:
            entry = None
        if entry is None or not self.shows(entry):
            raise ModelNotFound(name[:200], tuple(entry.id for entry in self.entries))
        return entry


VIEW = web.AppKey("view", View)
REQUEST_ID = web.RequestKey("request_id", str)
CLIENT = web.RequestKey("client", str)  # its address
ACCOUNT = web.RequestKey("account", Account)
TICKET = web.RequestKey("ticket", Ticket)
