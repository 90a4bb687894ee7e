"""Kept chats as the server uses them: a file that is damaged, locked, full of chats, or not wanted."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from llamarunner.chats import Chats, Entry, NotKept, new_id
from llamarunner.chats.archive import BUSY_SECONDS, FILE_NAME
from llamarunner.chats.room import COMPANIONS
from llamarunner.config import ChatSettings
from llamarunner.errors import ServiceUnavailable


def settings(folder: Path, **more: object) -> ChatSettings:
    return ChatSettings.model_validate({"folder": folder, **more})


def entry(text: str = "x", previous: str | None = None) -> Entry:
    return Entry(new_id(), "me", "chat", previous, {"text": text}, {})


async def test_ids_are_as_lm_studios() -> None:
    assert new_id() != new_id()
    assert len(new_id()) == len("resp_") + 48


async def test_a_chat_goes_on_after_a_restart(tmp_path: Path) -> None:
    first, second = entry("one"), entry("other")
    async with Chats(settings(tmp_path)) as chats:
        assert await chats.keep(first)
        assert await chats.keep(second)
    third = entry("two", first.id)
    async with Chats(settings(tmp_path)) as chats:
        assert await chats.keep(third)
        assert await chats.turns(third.id, "me", "chat") == [{"text": "one"}, {"text": "two"}]


async def test_nothing_is_made_until_something_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    async with Chats(settings(folder)) as chats:
        with pytest.raises(NotKept):
            await chats.turns("resp_1", "me", "chat")
        with pytest.raises(NotKept):
            await chats.delete("resp_1", "me")
        assert not folder.exists()


@pytest.mark.parametrize("whole", [True, False], ids=["no database", "a page"])
async def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: bool) -> None:
    file = tmp_path / FILE_NAME
    async with Chats(settings(tmp_path)) as chats:
        for _ in range(50):
            await chats.keep(entry("x" * 2000))
    intact = file.read_bytes()
    damaged = b"not a database" * 1000 if whole else intact[:4096] + b"\xff" * (len(intact) - 4096)
    file.write_bytes(damaged)
    async with Chats(settings(tmp_path)) as chats:
        with pytest.raises(NotKept):
            await chats.turns("resp_1", "me", "chat")
        fresh = entry()
        assert await chats.keep(fresh)
        assert await chats.turns(fresh.id, "me", "chat") == [{"text": "x"}]
    (aside,) = found_aside(tmp_path)
    assert aside.read_bytes()[-4096:] == damaged[-4096:]
    assert str(aside) in caplog.text


def found_aside(folder: Path) -> list[Path]:
    return [one for one in folder.glob("*.damaged-*") if not one.name.endswith(("-wal", "-shm"))]


async def test_a_file_of_a_later_version_is_left_alone_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / FILE_NAME
    async with Chats(settings(tmp_path)) as chats:
        await chats.keep(entry())
    other = sqlite3.connect(file)
    other.execute("PRAGMA user_version=99")
    other.close()
    async with Chats(settings(tmp_path)) as chats:
        assert not await chats.keep(entry())
        assert not await chats.keep(entry())
        with pytest.raises(ServiceUnavailable):
            await chats.turns("resp_1", "me", "chat")
    assert caplog.text.count("a later version wrote it") == 1


async def test_a_locked_file_holds_up_all_no_longer_than_one(tmp_path: Path) -> None:
    """Answers wait until they are kept, each in the one thread."""
    async with Chats(settings(tmp_path)) as chats:
        await chats.keep(entry())
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            async with asyncio.timeout(3 * BUSY_SECONDS):
                kept = await asyncio.gather(*(chats.keep(entry()) for _ in range(8)))
            other.execute("ROLLBACK")
        assert kept == [False] * 8
        assert await chats.keep(entry())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are open")
async def test_a_file_that_its_owner_deletes_is_gone(tmp_path: Path) -> None:
    first, second = entry(), entry()
    async with Chats(settings(tmp_path)) as chats:
        await chats.keep(first)
        for companion in COMPANIONS:
            (tmp_path / f"{FILE_NAME}{companion}").unlink()
        with pytest.raises(NotKept):
            await chats.turns(first.id, "me", "chat")
        await chats.keep(second)
    async with Chats(settings(tmp_path)) as chats:
        assert await chats.turns(second.id, "me", "chat") == [{"text": "x"}]


async def test_old_chats_are_gone_for_reading_too(tmp_path: Path) -> None:
    first = entry()
    async with Chats(settings(tmp_path)) as chats:
        await chats.keep(first)
        chats.configure(settings(tmp_path, max_age_days=1e-9))
        with pytest.raises(NotKept):
            await chats.turns(first.id, "me", "chat")
        with pytest.raises(NotKept):
            await chats.entry(first.id, "me", "chat")


async def test_a_response_that_was_deleted_meanwhile_is_not_gone_on_from(tmp_path: Path) -> None:
    first = entry()
    async with Chats(settings(tmp_path)) as chats:
        await chats.keep(first)
        await chats.delete(first.id, "me")
        assert not await chats.keep(entry("later", first.id))


async def test_a_thousand_chats_take_no_memory(tmp_path: Path) -> None:
    async with Chats(settings(tmp_path)) as chats:
        await chats.keep(entry("warm"))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        ids = []
        for _ in range(50):
            batch = [entry("x" * 5000) for _ in range(20)]
            assert all(await asyncio.gather(*(chats.keep(one) for one in batch)))
            ids += [one.id for one in batch]
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for response_id in ids[::100]:
            assert len(await chats.turns(response_id, "me", "chat")) == 1
    assert len(ids) == 1000
    assert grown < 1_000_000, "five megabytes of text were kept"
