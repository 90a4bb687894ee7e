"""What a recipe is, what it reports, and how it shows that it is still at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

MODELS = Path(__file__).resolve().parent.parent
CONSOLE = Console()
_LINE_SECONDS = 20.0  # between lines where the output is no terminal


@dataclass(frozen=True, slots=True)
class Score:
    """One row of an evaluation."""

    what: str
    percent: float
    count: int  # questions asked, or words spoken
    mark: float | None = None  # percent to be reached; None: told, not judged
    at_most: bool = False  # the mark is an upper bound

    @property
    def ok(self) -> bool:
        if self.mark is None:
            return True
        return self.percent <= self.mark if self.at_most else self.percent >= self.mark


@dataclass(frozen=True, slots=True)
class Recipe:
    """One demo model: its file or folder in `models/`, how to make it and how to judge it."""

    name: str
    target: str
    build: Callable[[Path, Path], None]  # (target, folder for what it makes on the way)
    evaluate: Callable[[Path], list[Score]]


def right(what: str, answers: list[bool], mark: float | None = None) -> Score:
    """The share of right answers, as a row."""
    return Score(what, 100 * sum(answers) / len(answers), len(answers), mark)


@contextmanager
def stage(name: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show progress: a bar on a terminal, now and then a line elsewhere. Call what it gives after each step."""
    if CONSOLE.is_terminal:
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
        with Progress(*columns, console=CONSOLE) as bar:
            task = bar.add_task(name, total=total, note="")

            def advance(note: str = "") -> None:
                bar.update(task, advance=1, note=note)

            yield advance
        return
    started = told = time.monotonic()
    done = 0

    def step(note: str = "") -> None:
        nonlocal told, done
        done += 1
        now = time.monotonic()
        if now - told >= _LINE_SECONDS or done == total:
            told = now
            left = (now - started) / done * (total - done)
            print(f"{name}: {done} of {total}, {left:.0f} s left {note}", flush=True)

    yield step


def table(title: str, scores: list[Score]) -> Table:
    """The scores for people."""
    made = Table(title=title)
    for heading in ("", "%", "of", "mark", ""):
        made.add_column(heading, justify="left" if not heading else "right")
    for score in scores:
        mark = "" if score.mark is None else f"{'≤' if score.at_most else '≥'} {score.mark:g}"
        made.add_row(score.what, f"{score.percent:.1f}", str(score.count), mark, "" if score.ok else "missed")
    return made
