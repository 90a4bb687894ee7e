"""Digests of models: known from manifests, or hashed once, in the background."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest

from llamarunner.catalog import ModelEntry, Stamp
from llamarunner.library import Digests
from llamarunner.library.digests import StaleFile
from tests.conftest import eventually


def entry(*paths: Path) -> ModelEntry:
    states = [path.stat() for path in paths]
    stamps = tuple(Stamp(state.st_size, state.st_mtime_ns, state.st_ino) for state in states)
    return ModelEntry("m", paths[0], files=paths, stamps=stamps)


def file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


async def test_a_manifest_knows_its_digest(tmp_path: Path) -> None:
    async with Digests(tmp_path / "cache") as digests:
        assert digests.of(ModelEntry("m", tmp_path / "m", digest="d" * 64)) == "d" * 64


async def test_a_stand_in_is_replaced_by_the_real_one(tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    model = entry(file(tmp_path / "m.gguf", data))
    real = hashlib.sha256(data).hexdigest()
    async with Digests(tmp_path / "state/cache") as digests:
        stand_in = digests.of(model)
        assert is_digest(stand_in)
        assert stand_in != real
        assert digests.of(model) == stand_in  # nothing has run yet
        await eventually(lambda: digests.of(model) == real)
    async with Digests(tmp_path / "state/cache") as again:
        assert again.of(model) == real
        os.utime(model.path, ns=(1, 1))
        assert again.of(entry(model.path)) not in (real, stand_in)


async def test_small_files_are_hashed_before_they_are_told(tmp_path: Path) -> None:
    small, large = entry(file(tmp_path / "a", b"a")), entry(file(tmp_path / "b", b"b" * 101))
    gone = entry(file(tmp_path / "c", b"c"))
    gone.path.unlink()
    more = entry(file(tmp_path / "d", b"d" * 100))
    async with Digests(tmp_path / "cache", quick_bytes=100) as digests:
        await digests.settle([large, more, gone, small])
        told = [digests.of(one) for one in (small, large, more)]  # nothing runs between these
        assert told[0] == hashlib.sha256(b"a").hexdigest()
        assert told[1] != hashlib.sha256(b"b" * 101).hexdigest()
        assert told[2] != hashlib.sha256(b"d" * 100).hexdigest(), "all together are more than a list waits for"
        await digests.settle([more])
        assert digests.of(more) == hashlib.sha256(b"d" * 100).hexdigest()
        assert is_digest(digests.of(gone))


async def test_a_model_of_several_files_has_one_digest(tmp_path: Path) -> None:
    parts = [file(tmp_path / name, name.encode()) for name in "ab"]
    real = hashlib.sha256("".join(f"{hashlib.sha256(one).hexdigest()}\n" for one in (b"a", b"b")).encode()).hexdigest()
    async with Digests(tmp_path / "cache") as digests:
        await eventually(lambda: digests.of(entry(*parts)) == real)


async def test_a_file_that_is_gone_or_another_keeps_its_stand_in(tmp_path: Path) -> None:
    good, gone = file(tmp_path / "a", b"a"), entry(file(tmp_path / "b", b"b"))
    (changed,) = (dataclasses.replace(entry(good), stamps=(Stamp(7, 7, 7),)),)
    (tmp_path / "b").unlink()
    async with Digests(tmp_path / "cache") as digests:
        before = [digests.of(one) for one in (gone, changed)]
        await eventually(lambda: digests.of(entry(good)) == hashlib.sha256(b"a").hexdigest())  # hashed after them
        assert [digests.of(one) for one in (gone, changed)] == before
        with pytest.raises(StaleFile):
            await digests.of_file(good, changed.stamps[0])


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 5}', b"\xff", b"[" * 100_000])
async def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    cache = file(tmp_path / "cache", damage)
    model = entry(file(tmp_path / "m", b"m"))
    async with Digests(cache) as digests:
        await digests.of_file(model.path, model.stamps[0])
    assert list(json.loads(cache.read_bytes()).values()) == [hashlib.sha256(b"m").hexdigest()]
