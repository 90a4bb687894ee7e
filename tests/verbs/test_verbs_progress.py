"""How a pull is shown."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator

import pytest

from llamarunner.verbs import progress
from llamarunner.verbs.client import BrokenOff, Json

MB = 1_000_000
DIGEST = "sha256:" + "a" * 64
SUCCESS = {"status": "success"}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", self.getvalue())]


def layer(done: int | None = None, total: int = 100 * MB) -> Json:
    line = {"status": "pulling aaaaaaaaaaaa", "digest": DIGEST, "total": total}
    return line if done is None else {**line, "completed": done}


def slowly(lines: list[Json]) -> Iterator[Json]:
    for line in lines:
        yield line
        time.sleep(0.03)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Screen()


def test_a_bar_has_the_speed_and_the_time_left(screen: Screen) -> None:
    lines = [{"status": "pulling manifest"}, layer(), *(layer(done * MB) for done in range(60, 66)), layer(100 * MB)]
    progress.bars(slowly(lines[:-1]), screen)
    last = screen.lines()[-2 if not screen.lines()[-1].strip() else -1]
    found = re.search(r"65% 65\.0/100\.0 MB (\d+(\.\d)?) MB/s \d+:\d\d", last)
    assert found, screen.lines()
    assert float(found[1]) < 60  # what had come before is not counted: it was ten thousand times as fast
    assert "pulling manifest" in screen.lines()


def test_where_nobody_looks_a_line_comes_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter(range(0, 1000, 2))
    lines = [{"status": "pulling manifest"}, layer(), *(layer(done * MB) for done in range(10, 101, 10)), SUCCESS]
    progress.plain(lines, lambda: next(clock))
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[1], told[-2], told[-1]) == (
        "pulling manifest",
        "pulling aaaaaaaaaaaa: 0% of 100 MB",
        "pulling aaaaaaaaaaaa: 100% of 100 MB",
        "success",
    )
    assert 5 <= len(told) <= 8


@pytest.mark.parametrize("lines", [[], [{"status": "pulling manifest"}], [SUCCESS, {"status": "more"}]])
def test_a_pull_that_ends_without_success_is_a_failure(lines: list[Json]) -> None:
    with pytest.raises(BrokenOff, match="it goes on from there"):
        list(progress.finished(lines))
