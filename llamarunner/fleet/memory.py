"""How much memory a new child could have: the machine's, or less if a control group limits us."""

from __future__ import annotations

from pathlib import Path

import psutil

# Linux control groups, version 2 and version 1: the limit, and what is used.
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
    ),
)


def available() -> int | None:
    """Return the bytes that can be had without swapping; None if the system does not tell."""
    try:
        free = int(psutil.virtual_memory().available)
    except OSError:  # no file descriptor left to read it with
        return None
    return min([free, *(left for files in CGROUPS if (left := _left(*files)) is not None)])


def _left(limit: Path, used: Path, stat: Path) -> int | None:
    """Bytes below the limit of a control group; cached file pages count as free. None where there is no limit."""
    try:
        lines = map(str.split, stat.read_text().splitlines())
        cached = sum(int(value) for key, value in lines if key == "inactive_file")
        return int(limit.read_text()) - int(used.read_text()) + cached
    except (OSError, ValueError):
        return None
