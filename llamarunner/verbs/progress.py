"""How far a pull is: a bar for each layer on a terminal, a line now and then elsewhere. All of it goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TextIO

from llamarunner.verbs.client import BrokenOff, Json
from llamarunner.verbs.tables import size
from llamarunner.verbs.terminal import harmless

if TYPE_CHECKING:
    from rich.progress import TaskID

PLAIN_SECONDS = 5.0  # between two lines about a layer where there is no terminal
SUCCESS = {"status": "success"}


def follow(lines: Iterable[Json]) -> None:
    """Show a pull until it is done. Raises what `lines` raises, and BrokenOff if they end too early."""
    (bars if sys.stderr.isatty() else plain)(finished(lines))


def finished(lines: Iterable[Json]) -> Iterable[Json]:
    """The lines, of which the last must be success."""
    last: Json = {}
    for last in lines:
        yield last
    if last != SUCCESS:
        raise BrokenOff("The server broke off the pull; pull again, and it goes on from there.")


def bars(lines: Iterable[Json], out: TextIO | None = None) -> None:
    """Draw a bar for each layer, with its speed and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        *(BarColumn(bar_width=None), TextColumn("{task.percentage:>3.0f}%"), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn(compact=True)),
    )
    console = Console(file=out or sys.stderr, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=console, expand=True) as progress:
        tasks: dict[str, TaskID] = {}
        for line in lines:
            digest, total, done = line.get("digest"), line.get("total"), line.get("completed", 0)
            if digest is None:
                console.print(harmless(str(line.get("status", "")), console.file))
            elif digest not in tasks:
                tasks[digest] = progress.add_task(
                    harmless(str(line["status"]), console.file), total=total, completed=done
                )
            else:  # rich leaves the first step out of the speed, which is what had come before
                progress.update(tasks[digest], completed=done)


def plain(lines: Iterable[Json], clock: Callable[[], float] = time.monotonic) -> None:
    """Print a line for each step, and one now and then for a layer that takes long."""
    told, told_at = "", 0.0
    for line in lines:
        status, total, done = str(line.get("status", "")), line.get("total"), line.get("completed", 0)
        if status == told and done != total and clock() < told_at + PLAIN_SECONDS:
            continue
        far = f": {100 * done // total}% of {size(total)}" if total else ""
        if status != told or far:
            print(harmless(status + far, sys.stderr), file=sys.stderr, flush=True)
        told, told_at = status, clock()
