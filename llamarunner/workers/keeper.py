"""The keeper: a process that waits for the server to vanish, and then ends what the server left behind.

Run as `keeper.py PID:NONCE`, the identity of its server, with the read end of a pipe as standard input. The server
never writes to the pipe but to say goodbye; the kernel closes it when the server dies in whatever way. Every
child, and what it spawned in turn, carries the identity in the environment variable `LLAMARUNNER_SERVER`, so nothing
is registered, nothing can be missed between fork and registration, and no stranger is ever touched: process names
and numbers play no part. After a goodbye it looks once, for what the server had no more time to wait for.

At its start it also ends the leftovers of servers that are gone, in case their keeper was killed with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

MARKER = "LLAMARUNNER_SERVER"
SWEEPS = 5
SWEEP_INTERVAL_SECONDS = 0.1


def main() -> None:
    server = sys.argv[1]
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    sweep(lambda mark: mark != server and not _lives(mark))
    goodbye = sys.stdin.buffer.read()
    for _ in range(1 if goodbye else SWEEPS):  # without one, a child may be forking while we look
        sweep(lambda mark: mark == server)
        time.sleep(0 if goodbye else SWEEP_INTERVAL_SECONDS)


def sweep(doomed) -> None:  # type: ignore[no-untyped-def]
    """Kill every process whose mark is doomed; those of other users are not ours to see."""
    import psutil  # only when needed: the keeper should be small while it waits

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARKER)
            if mark and process.pid != os.getpid() and doomed(mark):
                process.kill()


def _lives(mark: str) -> bool:
    """Whether the server of a mark may still run; a number that was reused counts as life, so no stranger is hit."""
    import psutil

    pid = mark.partition(":")[0]
    return pid.isdigit() and psutil.pid_exists(int(pid))


if __name__ == "__main__":
    main()
