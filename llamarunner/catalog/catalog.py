"""The catalog itself: a snapshot of all models, swapped whole, and the search in it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path

from watchfiles import Change, awatch

from llamarunner.catalog.entry import Capability, ModelEntry, Source
from llamarunner.catalog.places import Places
from llamarunner.catalog.readings import Readings
from llamarunner.catalog.scan import scan
from llamarunner.catalog.starved import Starved
from llamarunner.config import CatalogSettings, Settings
from llamarunner.errors import ModelNotFound

log = logging.getLogger("llamarunner.catalog")

RESCAN_SECONDS = 60.0  # for what no system tells: network folders, folders that appear
TICK_SECONDS = 1.0
BLIND_SECONDS = 5.0  # between scans while the system tells nothing
_DEBOUNCE_MS = 1_000  # a model that is being copied changes all the time
_UNFINISHED = (".incomplete", ".lock", ".part", ".tmp", ".downloadInProgress")
LONGEST_NAME = 1000  # letters; longer ones are not even compared
_LATEST = ":latest"
_USUAL_QUANTIZATION = "Q4_K_M"  # what Ollama and llama.cpp take for a name that leaves it open
_RANKS = {source: rank for rank, source in enumerate(Source)}


class Snapshot:
    """All models at one moment, and the names they answer to. Never changes."""

    def __init__(self, settings: CatalogSettings, entries: tuple[ModelEntry, ...] = ()) -> None:
        self.entries = entries
        self.visible = _visible(settings, entries)
        self._aliases = {alias.casefold(): target.casefold() for alias, target in settings.aliases.items()}
        self.ids = {entry.id.casefold(): entry for entry in entries}
        self._names: dict[str, ModelEntry] = {}
        for entry in sorted(entries, key=_preference):
            for name in entry.names:
                self._names.setdefault(name, entry)

    def find(self, name: str) -> ModelEntry | None:
        if len(name) > LONGEST_NAME:
            return None
        wanted = name.strip().casefold()
        for _ in self._aliases:  # each leads on once at most
            target = self._aliases.get(wanted) or self._aliases.get(wanted.removesuffix(_LATEST))
            if target is None:
                break
            if found := self._named(target):
                return found
            wanted = target
        return self._named(wanted)

    def _named(self, wanted: str) -> ModelEntry | None:
        spelled = (wanted, wanted.removesuffix(_LATEST))
        tables = (self.ids, self._names)
        return next((entry for table in tables for name in spelled if (entry := table.get(name))), None)


class Catalog:
    """Which models exist. Empty until the first `scan`; may be read from any thread."""

    def __init__(self, settings: Settings, places: Places | None = None) -> None:
        self._settings = settings
        self._places = places or Places.here()
        self._readings = Readings()
        self._scanning = threading.Lock()
        self._snapshot = Snapshot(self._settings.catalog)

    def scan(self) -> tuple[ModelEntry, ...]:
        """Read all places again and return the entries. Blocks for as long as the disks need; never raises.

        While the system lets us open no files, what was known before stays.
        """
        with self._scanning:
            before = self._snapshot
            try:
                entries = scan(self._settings, self._places, self._readings)
            except Starved:
                log.warning("too many open files; the models stay as they were known")
                entries = before.entries
            self._snapshot = Snapshot(self._settings.catalog, entries)
            _tell(before.entries, self._snapshot.entries)
            return self._snapshot.visible

    def configure(self, settings: Settings) -> tuple[ModelEntry, ...]:
        """Take over new settings, and scan; new folders are watched within a minute."""
        self._settings = settings
        return self.scan()

    @property
    def settings(self) -> CatalogSettings:
        """The settings in force."""
        return self._settings.catalog

    @property
    def library(self) -> Path | None:
        """The folder in which LlamaRunner stores models itself."""
        return self._settings.catalog.library or self._places.library

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """The models to show, sorted by id; demo models step back once the person has one of their kind."""
        return self._snapshot.visible

    def find(self, name: str) -> ModelEntry:
        """Return the model of that name, hidden and broken ones included. Raises ModelNotFound."""
        snapshot = self._snapshot
        if entry := snapshot.find(name):
            return entry
        raise ModelNotFound(name, tuple(known.id for known in snapshot.visible if not known.error))

    def knows(self, name: str) -> bool:
        """Tell whether some model has that name."""
        return self._snapshot.find(name) is not None

    def known(self, model_id: str) -> ModelEntry | None:
        """Return the model of exactly this id."""
        return self._snapshot.ids.get(model_id.casefold())

    async def watch(self, changed: Callable[[], None], rescan_seconds: float = RESCAN_SECONDS) -> None:
        """Scan, and scan again whenever models come, change or go, until cancelled; `changed` is called after each."""
        while True:
            folders = await asyncio.to_thread(self._folders)
            try:
                await self._watch(folders, changed, rescan_seconds)
            except* (
                OSError,
                RuntimeError,
            ) as failed:  # a folder that just went, a name that cannot be told, no watches
                log.warning("cannot watch the model folders, looking now and then: %s", failed.exceptions[0])
                await self._rescan(changed)
                await asyncio.sleep(min(BLIND_SECONDS, rescan_seconds))

    async def _watch(self, folders: dict[Path, int], changed: Callable[[], None], rescan_seconds: float) -> None:
        """Scan at first, on every change, and now and then; return when other folders are to be watched.

        The first scan comes after the watch has begun, so nothing falls between the two.
        """
        due = 0.0
        async for changes in _changes(folders):
            if changes or time.monotonic() >= due:
                await self._rescan(changed)
                due = time.monotonic() + rescan_seconds
            if await asyncio.to_thread(self._folders) != folders:
                return

    async def _rescan(self, changed: Callable[[], None]) -> None:
        await asyncio.to_thread(self.scan)
        changed()

    def _folders(self) -> dict[Path, int]:
        """Return the folders that exist, with their inodes: one that was made anew needs a new watch."""
        folders: dict[Path, int] = {}
        for source, store in self._places.stores(self._settings.catalog):
            folder = store / "manifests" if source in (Source.OLLAMA, Source.LIBRARY) else store
            try:
                folders[folder] = folder.stat().st_ino
            except OSError:
                continue
        return folders


async def _changes(folders: Iterable[Path]) -> AsyncIterator[bool]:
    """Tell each second whether something changed, and sooner when it does."""
    if not folders:
        while True:
            yield False
            await asyncio.sleep(TICK_SECONDS)
    changes = awatch(
        *folders,
        watch_filter=_matters,
        debounce=_DEBOUNCE_MS,
        rust_timeout=int(TICK_SECONDS * 1000),
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    async with aclosing(changes):
        async for batch in changes:
            yield bool(batch)


def _tell(before: Iterable[ModelEntry], after: Iterable[ModelEntry]) -> None:
    """Log which models came and went, and which cannot be used."""
    known, now = ({(entry.id, entry.error): entry for entry in entries} for entries in (before, after))
    for key in now.keys() - known.keys():
        model, error = key
        if error:
            log.warning("the model %s cannot be used: %s", model, error)
        else:
            log.info("found the model %s", model)
    for model in {name for name, _ in known} - {name for name, _ in now}:
        log.info("the model %s is gone", model)


def _visible(settings: CatalogSettings, entries: Iterable[ModelEntry]) -> tuple[ModelEntry, ...]:
    """The models to show: of the demo models all, none, or those of a kind that the person has no model of.

    What shares a file with a demo model, because it was copied or created from one, is no model of the person's own.
    """
    own = tuple(entry for entry in entries if entry.source is not Source.DEMO)
    match settings.demo_models:
        case "show":
            return tuple(entries)
        case "hide":
            return own
    demo = {stamp for entry in entries if entry.source is Source.DEMO for stamp in entry.stamps}
    there = {_kind(entry) for entry in own if not entry.error and demo.isdisjoint(entry.stamps)}
    return tuple(entry for entry in entries if entry.source is not Source.DEMO or _kind(entry) not in there)


def _kind(entry: ModelEntry) -> frozenset[Capability]:
    """What a model is for, if that is something else than text."""
    return entry.capabilities & {Capability.EMBEDDING, Capability.RERANK, Capability.TRANSCRIPTION}


def _preference(entry: ModelEntry) -> tuple[bool, int, bool, str]:
    """Order the models that a name fits: healthy ones, by source, of the usual quantisation, by id."""
    return bool(entry.error), _RANKS[entry.source], entry.quantization != _USUAL_QUANTIZATION, entry.id


def _matters(_: Change, path: str) -> bool:
    return not path.endswith(_UNFINISHED) and "-partial" not in path
