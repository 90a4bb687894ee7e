"""A child with all its offspring: a process group on POSIX, a tree of processes on Windows."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import Any

if sys.platform == "win32":
    import subprocess

    import psutil

    KILLED = None  # no exit code tells it there

    def spawn_options() -> dict[str, Any]:
        """What to pass to the spawn so that the child leads a group of its own."""
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def end(leader: int, hard: bool) -> None:
        """Ask the whole tree to end, or end it; fine if it is gone. There, both ways are abrupt."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(leader)
            for member in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    member.kill() if hard else member.terminate()

else:
    import os

    KILLED = -int(signal.SIGKILL)  # the exit code of a process that somebody killed

    def spawn_options() -> dict[str, Any]:
        """What to pass to the spawn so that the child leads a group of its own."""
        return {"start_new_session": True}

    def end(leader: int, hard: bool) -> None:
        """Signal the whole group, which may outlive its leader; fine if it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL if hard else signal.SIGTERM)


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
