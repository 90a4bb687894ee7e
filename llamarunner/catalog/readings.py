"""Reads files' headers, and each only once while the file stays as it is."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from llamarunner.catalog import starved
from llamarunner.gguf import HEADER_BYTES, GGUFError, Header, HeaderIncomplete, parse

_FIRST_READ_BYTES = 8 << 20  # enough for nearly all vocabularies
_POINTER = b"version https://git-lfs.github.com"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file is and says; without a header, `error` tells why."""

    path: Path
    size: int = 0
    changed_ns: int = 0
    identity: tuple[int, int] | None = None  # device and inode: the same for every way to the same file
    header: Header | None = None
    error: str | None = None


class Readings:
    """The headers read so far."""

    def __init__(self) -> None:
        self._kept: dict[Path, Reading] = {}
        self._used: dict[Path, Reading] = {}

    def read(self, path: Path) -> Reading:
        """Read a file's header, or remember it. Never raises; the reasons name no place of this machine."""
        try:
            status = path.stat()
        except OSError as error:
            return Reading(path, error=_reason(error))
        kept = self._used.get(path) or self._kept.get(path)
        if kept is None or (kept.size, kept.changed_ns) != (status.st_size, status.st_mtime_ns):
            kept = _read(path, status)
        self._used[path] = kept
        return kept

    def weigh(self, path: Path) -> Reading:
        """Read of a file without a GGUF header how large it is, and whether it can be what it seems. Never raises."""
        try:
            status = path.stat()
            error = _why_no_weights(path, status)
        except OSError as fault:
            return Reading(path, error=_reason(fault))
        identity = (status.st_dev, status.st_ino)
        return Reading(path, status.st_size, status.st_mtime_ns, identity, error=error)

    def forget_unused(self) -> None:
        """Forget the files that were not asked for since the last call."""
        self._kept, self._used = self._used, {}


def _why_no_weights(path: Path, status: os.stat_result) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if not start:
        return "the file is empty"
    return "a Git LFS pointer, not the model itself" if start == _POINTER else None


def _read(path: Path, status: os.stat_result) -> Reading:
    header, error = None, None
    try:
        header = _read_header(path, status)
    except GGUFError as fault:
        error = str(fault)
    except OSError as fault:
        error = _reason(fault)
    identity = (status.st_dev, status.st_ino)
    return Reading(path, status.st_size, status.st_mtime_ns, identity, header, error)


def _read_header(path: Path, status: os.stat_result) -> Header:
    if not stat.S_ISREG(status.st_mode):
        raise GGUFError("not a regular file")
    if not status.st_size:
        raise GGUFError("the file is empty")
    with path.open("rb") as file:
        data = file.read(_FIRST_READ_BYTES)
        if data.startswith(_POINTER):
            raise GGUFError("a Git LFS pointer, not the model itself")
        try:
            return parse(data, status.st_size)
        except HeaderIncomplete:
            if status.st_size <= len(data):
                raise
            return _parse_large(data + file.read(HEADER_BYTES - len(data)), status.st_size)


def _parse_large(data: bytes, file_size: int) -> Header:
    try:
        return parse(data, file_size)
    except HeaderIncomplete:
        if file_size > len(data):
            raise GGUFError(f"damaged: the header is longer than {HEADER_BYTES >> 20} MiB") from None
        raise


def _reason(error: OSError) -> str:
    starved.check(error)
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    return f"the file cannot be read: {error.strerror or type(error).__name__}"
