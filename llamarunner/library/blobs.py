"""The blobs of a library: files under the names of their digests. Each appears whole, or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from threading import Event

from llamarunner.catalog.manifests import BLOB_PREFIX, Layout, hex_of
from llamarunner.errors import InvalidRequest
from llamarunner.library.faults import NoRoom, store_fault
from llamarunner.library.threads import in_thread

BLOCK_BYTES = 1 << 20
UPLOAD_SECONDS = 86_400.0  # for which a blob without a model is kept: somebody means to create one of it
PART_SECONDS = 7 * 86_400.0  # for which what came of a broken pull is kept
RESERVE = 0.05  # of what is to be written, that must be free besides

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_PART = ".part"
_UPLOAD = "upload-"

Free = Callable[[Path], int]  # the bytes that are free where a folder lies


class InvalidDigest(InvalidRequest):
    """Not a digest."""

    def __init__(self) -> None:
        super().__init__("invalid digest format", param="digest")


class DigestMismatch(InvalidRequest):
    """The bytes are others than the digest says."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{got}"', param="digest")


def canonical(digest: str) -> str:
    """Return a digest as manifests have it: `sha256:` and small digits. Raises InvalidDigest."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidDigest
    return f"sha256:{digest[7:].lower()}"


@contextmanager
def storing() -> Iterator[None]:
    """Turn what the system says against reading or writing into StoreFailed."""
    try:
        yield
    except OSError as error:
        raise store_fault(error) from error


class Blobs:
    """The blobs in a layout. What is named after a thing of the disk blocks; call it in a thread."""

    def __init__(self, layout: Layout, free: Free) -> None:
        self._layout = layout
        self._free = free

    def path(self, digest: str) -> Path:
        """Raises InvalidDigest."""
        return self._layout.confined(self._layout.blob(canonical(digest)))

    def part(self, digest: str) -> Path:
        """Where a blob is gathered until it is whole."""
        path = self.path(digest)
        return path.with_name(path.name + _PART)

    def has(self, digest: str) -> bool:
        """Raises InvalidDigest."""
        return self.path(digest).is_file()

    def require(self, size: int) -> None:
        """Raises NoRoom where so many bytes would not fit, with a reserve."""
        folder = self._layout.root
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = self._free(folder)
        if size * (1 + RESERVE) > free:
            raise NoRoom(f"no space left on device: {size} bytes and a reserve are needed, {free} are free")

    async def put(self, digest: str, chunks: AsyncIterator[bytes], size: int | None = None) -> bool:
        """Store what a client sends; return False if it was there. `size` is how much it says that it will send.

        Raises InvalidDigest, DigestMismatch, StoreFailed; then nothing is left of it.
        """
        wanted = canonical(digest)
        if await in_thread(self.has, wanted):
            return False
        with storing():
            await in_thread(self.require, size or 0)
            part = self._upload()
            try:
                got = await _gather(part, chunks)
                if got != wanted:
                    raise DigestMismatch(wanted, got)
                await in_thread(self.settle, part, wanted)
            finally:
                await in_thread(part.unlink, missing_ok=True)
        return True

    def _upload(self) -> Path:
        return self._layout.blobs / f"{_UPLOAD}{token_hex(8)}{_PART}"

    def add(self, data: bytes) -> tuple[str, bool]:
        """Store a few bytes; return their digest, and whether they are new."""
        digest = f"sha256:{sha256(data).hexdigest()}"
        if self.has(digest):
            return digest, False
        part = self._upload()
        append(part, data)
        self.settle(part, digest)
        return digest, True

    def link(self, source: Path, digest: str) -> None:
        """Store a file that lies elsewhere without copying it: by a hard link, or by a symbolic one to another disk.

        So a model that is made of one in the person's folders takes no room of its own. With a hard link it stays when
        that file is deleted; with a symbolic one it does not. The file itself is never changed or deleted from here.
        """
        path = self.path(digest)
        if path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a link to what is gone
        real = source.resolve(strict=True)
        try:
            path.hardlink_to(real)
        except OSError:
            path.symlink_to(real)

    def settle(self, part: Path, digest: str) -> None:
        """Give a whole file its name, for good."""
        path = self.path(digest)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)

    def clear(self, keep: Collection[str], gone: Collection[str] = ()) -> int:
        """Delete the blobs that are not of `keep`: those of `gone` now, others when nobody came for them in time.

        Returns how many whole blobs went. All digests are 64 hexadecimal digits.
        """
        removed = 0
        with suppress(OSError), os.scandir(self._layout.blobs) as listing:
            for one in listing:
                name = one.name.removeprefix(BLOB_PREFIX)
                if name[:64] in keep or not (name[:64] in gone or _is_stray(one)):
                    continue
                with suppress(OSError):
                    os.unlink(one.path)
                    removed += len(name) == 64
        return removed


def _is_stray(file: os.DirEntry[str]) -> bool:
    """Whether a file that no model has was left alone for long; a link is as old as itself."""
    try:
        age = time.time() - file.stat(follow_symlinks=False).st_ctime
    except OSError:
        return False
    resumable = _PART in file.name and not file.name.startswith(_UPLOAD)
    return age > (PART_SECONDS if resumable else UPLOAD_SECONDS)


async def _gather(part: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write all that comes, and return its digest."""
    hasher = sha256()
    waiting = bytearray()

    def write(block: bytes) -> None:
        hasher.update(block)
        append(part, block)

    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= BLOCK_BYTES:
            block = bytes(waiting)
            waiting.clear()
            await in_thread(write, block)
    await in_thread(write, bytes(waiting))
    return f"sha256:{hasher.hexdigest()}"


def append(path: Path, block: bytes) -> None:
    """Add to a file, and make it if it is not there. No file stays open between, so nothing is left to close."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(block)


async def hashed(path: Path) -> str:
    """The sha256 of a file, 64 hexadecimal digits; the reading ends when we are cancelled. Raises OSError."""
    stop = Event()
    try:
        return await asyncio.to_thread(hash_file, path, stop.is_set)
    finally:
        stop.set()


def hash_file(path: Path, stopped: Callable[[], bool] = lambda: False) -> str:
    """The sha256 of a file, 64 hexadecimal digits. Raises InterruptedError once `stopped`."""
    hasher = sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if stopped():
                raise InterruptedError
            hasher.update(block)
    return hasher.hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or as it was, whatever happens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{token_hex(8)}{_PART}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that a new name in a folder outlives a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def hexes(digests: Collection[str]) -> set[str]:
    """The digits of all that are digests."""
    found = set()
    for digest in digests:
        with suppress(ValueError):
            found.add(hex_of(digest))
    return found
