"""Where uploads lie while they are worked on: a folder of our own, which nobody else can read.

It is made for the first upload and goes with the server. A server that was killed leaves it behind; its name tells
whose it was, and the next server removes it. Names that clients give to files play no part.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

_PREFIX = "llamarunner-uploads"
_NAME = re.compile(_PREFIX + r"-(\d+)-(\d+)-\w+")
_CLOCK_SECONDS = 2  # by which two readings of the moment that a process began may differ


class Spool:
    """The folder; `close` it at the end. Its methods block for as long as the disk needs."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._folder: str | None = None  # of the next upload
        self._left: list[str] = []  # where earlier uploads may still lie
        self._making = threading.Lock()

    def configure(self, parent: Path | None) -> None:
        """Make the folder of the uploads to come elsewhere."""
        with self._making:
            if parent != self._parent:
                self._parent = parent
                self._leave()

    @contextlib.contextmanager
    def file(self) -> Iterator[tuple[IO[bytes], Path]]:
        """An empty file and its path, removed at the end of the block. Raises OSError where there is no room."""
        handle, path = tempfile.mkstemp(dir=self._made(), prefix="upload-")
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                yield file, Path(path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def close(self) -> None:
        with self._making:
            self._leave()
            for folder in self._left:
                shutil.rmtree(folder, ignore_errors=True)
            self._left = []

    def sweep(self) -> None:
        """Remove what servers that are gone have left behind; never raises."""
        with contextlib.suppress(OSError), os.scandir(self._parent or tempfile.gettempdir()) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match and _is_ours(entry) and not _lives(int(match[1]), int(match[2])):
                    shutil.rmtree(entry.path, ignore_errors=True)

    def _made(self) -> str:
        with self._making:
            if self._folder and not _is_ours(Path(self._folder)):
                self._folder = None  # who cleans up old files may remove it
            if self._folder is None:
                if self._parent:
                    self._parent.mkdir(parents=True, exist_ok=True)
                mark = f"{os.getpid()}-{int(psutil.Process().create_time())}"
                self._folder = tempfile.mkdtemp(dir=self._parent, prefix=f"{_PREFIX}-{mark}-")
            return self._folder

    def _leave(self) -> None:
        if self._folder:
            self._left.append(self._folder)
        self._folder = None


def _is_ours(folder: os.DirEntry[str] | Path) -> bool:
    """Whether it is a folder, no link to one, and belongs to the user that this process runs as."""
    with contextlib.suppress(OSError):
        told = os.lstat(folder)
        return stat.S_ISDIR(told.st_mode) and (not hasattr(os, "getuid") or told.st_uid == os.getuid())
    return False


def _lives(pid: int, began: int) -> bool:
    """Whether the server of a folder still runs; a number may have gone to another process since."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - began) <= _CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False
