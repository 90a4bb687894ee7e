"""What every worker program does at its start: keep its output clean, and not outlive the server."""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def fail(message: str, code: int) -> int:
    """Say on stderr why the program ends, and return its exit code."""
    print(message, file=sys.stderr)
    return code


def reserve_stdout() -> int:
    """Return a descriptor of stdout for us alone: what a library prints there goes to stderr."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return ours


def die_with_parent() -> None:
    """Ask the kernel to kill us when the thread that started us ends; only Linux can, elsewhere the keeper does it."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def write_no_files() -> None:
    """Give up, for good, what a program that reads strangers' files need not do.

    It cannot fill the disk, and a crash leaves no image of its memory, which has what people said. Pipes and sockets
    can be written as before; what a library would keep in a file fails there.
    """
    if sys.platform == "win32":
        return
    import resource

    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))


def give_memory_back() -> None:
    """Return to the system what the C library keeps for later; only glibc can."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
