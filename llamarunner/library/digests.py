"""The digests of models: those of manifests, and the sha256 of files that have none, computed once, in the background.

Hashing takes minutes for large models, and lists cannot wait. So until a file has been hashed, a large model that no
manifest names is told with a stand-in: 64 digits that are made of its paths, sizes and dates, and stay the same until
then. Small ones are hashed before they are told.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from llamarunner.catalog import ModelEntry, Stamp
from llamarunner.catalog.manifests import read_small
from llamarunner.library.blobs import hash_file, write_whole

log = logging.getLogger("llamarunner.library")

MOST_WAITING = 1000  # files to hash; more are hashed when they are asked for again
QUICK_BYTES = 128 << 20  # that are hashed while a list waits, well within a second
MOST_KEPT = 5000  # digests, the newest; so the cache stays below the size that is read back


class Digests:
    """What has been hashed, kept in a small file. `async with` it: hashing ends where it ends."""

    def __init__(self, cache: Path, quick_bytes: int = QUICK_BYTES) -> None:
        self._quick_bytes = quick_bytes
        self._settling = asyncio.Lock()
        self._cache = cache
        self._known: dict[str, str] = {}
        self._unsaved = False
        self._waiting: dict[str, tuple[Path, Stamp]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digests")
        self._work = asyncio.Event()
        self._stop = Event()
        self._group = asyncio.TaskGroup()
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._known = await asyncio.to_thread(_read, self._cache)
        await self._group.__aenter__()
        self._worker = self._group.create_task(self._hash_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._worker:
            self._worker.cancel()
        await self._group.__aexit__(None, None, None)
        await asyncio.to_thread(self._thread.shutdown)
        if self._unsaved:
            await asyncio.to_thread(self._save)

    def of(self, entry: ModelEntry) -> str:
        """The digest of a model, 64 hexadecimal digits; never waits. A stand-in is replaced in the background."""
        if entry.digest:
            return entry.digest
        files = list(zip(entry.files, entry.stamps, strict=False))
        if entry.error or not files:
            return _stand_in(entry)
        digests = []
        for path, stamp in files:
            known = self._known.get(_key(path, stamp))
            if known is None:
                self._want(path, stamp)
            digests.append(known)
        found = [digest for digest in digests if digest]
        return _joined(found) if len(found) == len(files) else _stand_in(entry)

    async def settle(self, entries: Iterable[ModelEntry]) -> None:
        """Hash the smallest files of these models, as many as do not take long, so that `of` tells no stand-in."""
        files = {
            _key(path, stamp): (path, stamp)
            for entry in entries
            if not (entry.digest or entry.error)
            for path, stamp in zip(entry.files, entry.stamps, strict=False)
            if stamp.size <= self._quick_bytes
        }
        if files.keys() <= self._known.keys():
            return
        async with self._settling:
            left = self._quick_bytes
            for key, (path, stamp) in sorted(files.items(), key=lambda one: one[1][1].size):
                if key in self._known:
                    continue
                left -= stamp.size
                if left < 0:
                    return
                with suppress(OSError):  # then the stand-in stays
                    self._known[key] = await asyncio.to_thread(_hash, path, stamp, self._stop)
                    self._unsaved = True

    async def of_file(self, path: Path, stamp: Stamp) -> str:
        """The sha256 of a file, 64 hexadecimal digits, as long as that takes.

        Raises OSError; a file that is no longer as the stamp says is a StaleFile.
        """
        key = _key(path, stamp)
        if key not in self._known:
            loop = asyncio.get_running_loop()
            self._known[key] = await loop.run_in_executor(self._thread, partial(self._hash, key, path, stamp))
            self._waiting.pop(key, None)
            self._unsaved = True
            await loop.run_in_executor(self._thread, self._save)
        return self._known[key]

    def _hash(self, key: str, path: Path, stamp: Stamp) -> str:
        """Hash a file, unless that was done while this waited for its turn."""
        return self._known.get(key) or _hash(path, stamp, self._stop)

    def _save(self) -> None:
        self._unsaved = False
        with suppress(OSError):  # all is hashed again at the next start, then
            write_whole(self._cache, json.dumps(dict(list(self._known.items())[-MOST_KEPT:])).encode())

    def _want(self, path: Path, stamp: Stamp) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting.setdefault(_key(path, stamp), (path, stamp))
            self._work.set()

    async def _hash_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                key, (path, stamp) = next(iter(self._waiting.items()))
                try:
                    await self.of_file(path, stamp)
                except OSError as error:
                    log.debug("cannot hash a model: %s", error.strerror or type(error).__name__)
                self._waiting.pop(key, None)


class StaleFile(OSError):
    """The file is another one than the catalog has seen."""


def _hash(path: Path, stamp: Stamp, stop: Event) -> str:
    if _stamp(path) != stamp:
        raise StaleFile
    digest = hash_file(path, stop.is_set)
    if _stamp(path) != stamp:
        raise StaleFile
    return digest


def _stamp(path: Path) -> Stamp:
    state = path.stat()
    return Stamp(state.st_size, state.st_mtime_ns, state.st_ino)


def _key(path: Path, stamp: Stamp) -> str:
    return sha256(repr((str(path), *stamp)).encode(errors="surrogateescape")).hexdigest()


def _joined(digests: Sequence[str]) -> str:
    """One digest for all files of a model: its own for one file, that of the list for several."""
    return digests[0] if len(digests) == 1 else sha256("".join(f"{one}\n" for one in digests).encode()).hexdigest()


def _stand_in(entry: ModelEntry) -> str:
    told = [str(path) for path in entry.files or (entry.path,)], [(one.size, one.changed_ns) for one in entry.stamps]
    return sha256(repr(told).encode(errors="surrogateescape")).hexdigest()


def _read(cache: Path) -> dict[str, str]:
    try:
        kept = json.loads(read_small(cache) or b"{}")
    except (ValueError, RecursionError):
        return {}
    pairs = kept.items() if isinstance(kept, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str) and len(value) == 64}
