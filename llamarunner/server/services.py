"""What every handler may use, and the typed keys under which an application carries it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from aiohttp import web

from llamarunner.catalog import Catalog, ModelEntry
from llamarunner.config import Door, Settings
from llamarunner.errors import Forbidden, ModelNotFound
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.server.admission import Admission
from llamarunner.server.client import Client
from llamarunner.server.drain import Drain
from llamarunner.server.figures import Figures


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
    runtime: Callable[[], tuple[str | None, str | None]] = lambda: (None, None)  # kind and version, as far as known
    views: list[View] = field(default_factory=list)
    figures: Figures = field(init=False)

    def __post_init__(self) -> None:
        self.figures = Figures(self.client)

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
        self.port: int | None = None  # on which it listens
        self._local = door.local  # as it was opened, whatever the settings say later
        services.views.append(self)
        self.configure(door)

    def configure(self, door: Door) -> None:
        self.door = door
        self.rules = Admission(door)

    def check_management(self) -> None:
        """Refuse what changes the machine where anybody could ask for it. Raises Forbidden."""
        allowed = {"always": True, "never": False, "auto": self._local or bool(self.door.api_keys)}
        if not allowed[self.door.allow_management]:
            raise Forbidden(
                "Models cannot be managed through this door; the owner can give it api_keys, or set allow_management."
            )

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
