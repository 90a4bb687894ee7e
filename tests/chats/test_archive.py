"""The file of chats: what is kept, for whom, how long, and how much of it."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamarunner.chats import Entry, NotKept
from llamarunner.chats.archive import VERSION, Archive, Newer

ROOM = 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "chats.sqlite3"


@pytest.fixture
def archive(file: Path) -> Iterator[Archive]:
    opened = Archive(file)
    yield opened
    opened.close()


def entry(name: str, previous: str | None = None, *, owner: str = "me", text: str = "") -> Entry:
    return Entry(f"resp_{name}", owner, "chat", previous and f"resp_{previous}", {"said": name + text}, {"id": name})


def said(archive: Archive, name: str, owner: str = "me", kind: str = "chat") -> list[str]:
    return [turn["said"] for turn in archive.turns(f"resp_{name}", owner, kind, 1.0)]


def test_the_way_to_a_response_is_told_from_the_beginning_in_every_branch(archive: Archive) -> None:
    for one in (entry("a"), entry("b", "a"), entry("c", "b"), entry("d", "a"), entry("other")):
        assert archive.add(one, 1.0, ROOM)
    assert [said(archive, name) for name in "abcd"] == [["a"], ["a", "b"], ["a", "b", "c"], ["a", "d"]]
    assert archive.entry("resp_d", "me", "chat") == entry("d", "a")


def test_what_is_not_there_is_not_kept(archive: Archive) -> None:
    archive.add(entry("a"), 1.0, ROOM)
    for name, owner, kind in (("x", "me", "chat"), ("a", "you", "chat"), ("a", "me", "response")):
        with pytest.raises(NotKept):
            said(archive, name, owner, kind)
        with pytest.raises(NotKept):
            archive.entry(f"resp_{name}", owner, kind)
    for name, owner in (("x", "me"), ("a", "you")):
        with pytest.raises(NotKept):
            archive.delete(f"resp_{name}", owner)
    with pytest.raises(NotKept):
        archive.add(entry("b", "a", owner="you"), 1.0, ROOM)
    assert said(archive, "a") == ["a"]


def test_what_went_on_from_a_deleted_response_is_told_but_not_gone_on_with(archive: Archive) -> None:
    for one in (entry("a"), entry("b", "a"), entry("c", "b")):
        archive.add(one, 1.0, ROOM)
    archive.delete("resp_b", "me")
    assert said(archive, "a") == ["a"]
    assert archive.entry("resp_c", "me", "chat").body == {"id": "c"}
    with pytest.raises(NotKept):
        said(archive, "c")


def test_a_chat_is_as_young_as_its_last_use(archive: Archive) -> None:
    archive.add(entry("a"), 10.0, ROOM)
    archive.add(entry("b"), 20.0, ROOM)
    archive.add(entry("c", "a"), 30.0, ROOM)
    archive.add(entry("d"), 5.0, ROOM)
    archive.turns("resp_d", "me", "chat", 40.0)
    assert archive.forget(25.0) == 1
    assert [said(archive, name) for name in "acd"] == [["a"], ["a", "c"], ["d"]]
    with pytest.raises(NotKept):
        said(archive, "b")


def test_the_chats_used_least_recently_make_room(archive: Archive, file: Path) -> None:
    large, most = "x" * 50_000, 600_000
    for number in range(30):
        assert archive.add(entry(f"{number}", text=large), float(number), most)
        archive.add(entry("0a", "0", text="") if number == 5 else entry(f"s{number}"), 1000.0 + number, most)
    assert said(archive, "0a")[1:] == ["0a"], "the first was used again"
    assert len(said(archive, "29")) == 1
    with pytest.raises(NotKept):
        said(archive, "10")
    assert file.stat().st_size < 2 * most


def test_a_chat_that_is_larger_than_the_room_is_not_kept_and_takes_no_other_with_it(archive: Archive) -> None:
    archive.add(entry("small", owner="you"), 1.0, 300_000)
    archive.add(entry("a"), 1.0, 300_000)
    assert not archive.add(entry("b", "a", text="x" * 500_000), 2.0, 300_000)
    for name in "ab":
        with pytest.raises(NotKept):
            said(archive, name)
    assert said(archive, "small", "you") == ["small"]
    assert archive.add(entry("c"), 3.0, 300_000)


def test_it_survives_and_two_may_use_it(file: Path) -> None:
    first, second = Archive(file), Archive(file)
    first.add(entry("a"), 1.0, ROOM)
    second.add(entry("b", "a"), 1.0, ROOM)
    first.close()
    second.close()
    third = Archive(file)
    assert said(third, "b") == ["a", "b"]
    third.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
def test_it_is_for_its_owner_alone(archive: Archive, file: Path) -> None:
    archive.add(entry("a"), 1.0, ROOM)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 3, "and its companions"
    assert stat.S_IMODE(os.stat(file.parent).st_mode) == 0o700


def test_what_is_deleted_is_overwritten(archive: Archive, file: Path) -> None:
    archive.add(entry("a", text="very secret " * 20), 1.0, ROOM)
    archive.delete("resp_a", "me")
    archive.close()
    assert b"very secret" not in b"".join(one.read_bytes() for one in file.parent.iterdir())


def test_a_file_of_a_later_version_is_left_alone(file: Path) -> None:
    Archive(file).close()
    db = sqlite3.connect(file)
    db.execute(f"PRAGMA user_version={VERSION + 1}")
    db.close()
    with pytest.raises(Newer):
        Archive(file)


def test_a_row_that_cannot_be_read_is_not_there(archive: Archive, file: Path) -> None:
    archive.add(entry("a"), 1.0, ROOM)
    db = sqlite3.connect(file)
    with db:
        db.execute("UPDATE responses SET turn = '{'")
    db.close()
    with pytest.raises(NotKept):
        said(archive, "a")
