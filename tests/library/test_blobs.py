"""Blobs appear whole and right, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamarunner.catalog.manifests import Layout
from llamarunner.library import DigestMismatch, InvalidDigest, NoRoom
from llamarunner.library import blobs as module
from llamarunner.library.blobs import Blobs
from tests.conftest import eventually
from tests.library.places import digest_of

DATA = os.urandom(3_000_000)


def blobs(root: Path, free: int = 1 << 40) -> Blobs:
    return Blobs(Layout(root), lambda _: free)


async def chunks(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def left(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("data", [b"", b"x", DATA])
@pytest.mark.parametrize(
    "spelling", [str, lambda digest: digest.replace(":", "-"), lambda digest: "sha256:" + digest[7:].upper()]
)
async def test_what_is_sent_is_stored(tmp_path: Path, data: bytes, spelling: type[str]) -> None:
    store, digest = blobs(tmp_path), digest_of(data)
    assert not store.has(spelling(digest))
    assert await store.put(spelling(digest), chunks(data), len(data)) is True
    assert store.has(digest)
    assert store.path(digest).read_bytes() == data
    assert left(tmp_path) == [digest.replace(":", "-")]
    assert await store.put(digest, chunks(b"not read")) is False


async def test_other_bytes_leave_nothing(tmp_path: Path) -> None:
    wanted, got = digest_of(b"a"), digest_of(DATA)
    with pytest.raises(DigestMismatch) as told:
        await blobs(tmp_path).put(wanted, chunks(DATA))
    assert told.value.message == f'digest mismatch, expected "{wanted}", got "{got}"'
    assert left(tmp_path) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../x", "md5:" + "a" * 64, "sha256:" + "g" * 64, "a" * 64])
async def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    store = blobs(tmp_path)
    with pytest.raises(InvalidDigest, match=r"^invalid digest format$"):
        await store.put(digest, chunks(b""))
    with pytest.raises(InvalidDigest):
        store.has(digest)


async def test_an_upload_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    async def hanging() -> AsyncIterator[bytes]:
        yield DATA
        await asyncio.Event().wait()

    upload = asyncio.gather(blobs(tmp_path).put(digest_of(DATA), hanging()))
    await eventually(lambda: bool(left(tmp_path)))
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert left(tmp_path) == []


async def test_an_upload_for_which_there_is_no_room_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(NoRoom):
        await blobs(tmp_path, free=len(DATA)).put(digest_of(DATA), chunks(DATA), len(DATA))
    assert left(tmp_path) == []


async def test_two_uploads_of_one_blob_are_both_well(tmp_path: Path) -> None:
    store = blobs(tmp_path)
    done = await asyncio.gather(*(store.put(digest_of(DATA), chunks(DATA)) for _ in range(3)))
    assert True in done
    assert store.path(digest_of(DATA)).read_bytes() == DATA
    assert len(left(tmp_path)) == 1


def test_a_file_elsewhere_is_linked_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "elsewhere.gguf"
    source.write_bytes(DATA)
    hard, soft = blobs(tmp_path / "a"), blobs(tmp_path / "b")
    hard.link(source, digest_of(DATA))
    assert hard.path(digest_of(DATA)).samefile(source)
    assert source.stat().st_nlink == 2

    def other_disk(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_disk)
    soft.link(source, digest_of(DATA))
    assert soft.path(digest_of(DATA)).readlink() == source
    assert soft.clear(keep=(), gone=[digest_of(DATA)[7:]]) == 1
    assert source.read_bytes() == DATA


async def test_what_no_model_has_goes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = blobs(tmp_path)
    for data in (b"kept", b"gone", b"fresh"):
        await store.put(digest_of(data), chunks(data))
    store.part(digest_of(b"half")).write_bytes(b"ha")
    (tmp_path / "blobs" / "upload-1.part").write_bytes(b"broken")
    keep = {digest_of(b"kept")[7:]}
    assert store.clear(keep, gone={digest_of(b"gone")[7:]}) == 1
    fresh, half = store.path(digest_of(b"fresh")).name, store.part(digest_of(b"half")).name
    assert left(tmp_path) == sorted([store.path(digest_of(b"kept")).name, fresh, half, "upload-1.part"])
    monkeypatch.setattr(module, "UPLOAD_SECONDS", -1.0)
    assert store.clear(keep) == 1
    assert left(tmp_path) == sorted([store.path(digest_of(b"kept")).name, store.part(digest_of(b"half")).name])
    monkeypatch.setattr(module, "PART_SECONDS", -1.0)
    store.clear(keep)
    assert left(tmp_path) == [store.path(digest_of(b"kept")).name]
