"""Pulls from a registry, whatever it does to them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from llamarunner.catalog import Source
from llamarunner.errors import InvalidRequest, ShuttingDown
from llamarunner.library import Line, NoRoom, PullFailed
from llamarunner.library.download import Patience
from tests.conftest import eventually
from tests.library.places import Registry, digest_of, library, model_bytes, served

PULL = Path(__file__).parent.parent / "programs" / "pull.py"
BIG = 20_000  # weights of 2.5 MB


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    server = Registry()
    async with served(server):
        yield server


def statuses(lines: list[Line]) -> list[str]:
    """What the lines say, each once in a row."""
    said = [line["status"] for line in lines]
    return [one for place, one in enumerate(said) if place == 0 or said[place - 1] != one]


def part_of(data: bytes) -> str:
    return f"blobs/{digest_of(data).replace(':', '-')}.part"


async def test_a_model_is_pulled_with_ollamas_lines(tmp_path: Path, registry: Registry) -> None:
    weights, system, params = model_bytes(tmp_path), b"You are Mario.", b'{"stop":["<|im_end|>"],"num_ctx":2048}'
    manifest = registry.offer("library/Mario", ("model", weights), ("system", system), ("params", params))
    config = json.loads(manifest)["config"]["digest"]
    async with library(tmp_path, registry.url) as house:
        lines = await house.pull("Mario")
        entry = house.catalog.find("mario")
    digests = [digest_of(weights), digest_of(system), digest_of(params), config]
    assert statuses(lines) == [
        "pulling manifest",
        *(f"pulling {digest[7:19]}" for digest in digests),
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    told = [line for line in lines if line.get("digest") == digest_of(weights)]
    assert told[-1] == {
        "status": f"pulling {digest_of(weights)[7:19]}",
        "digest": digest_of(weights),
        "total": len(weights),
        "completed": len(weights),
    }
    assert (entry.id, entry.title, entry.source, entry.error) == ("mario", "Mario:latest", Source.LIBRARY, None)
    assert entry.digest == hashlib.sha256(manifest).hexdigest()
    assert entry.path.read_bytes() == weights
    assert (entry.preset.system, entry.preset.parameters) == (
        "You are Mario.",
        {"stop": ["<|im_end|>"], "num_ctx": 2048},
    )
    assert house.changes == [("mario",)]
    assert not [name for name in house.left() if ".part" in name or name.startswith(".")]


async def test_what_is_there_is_not_pulled_again(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path)
    registry.offer("library/a", ("model", weights))
    registry.offer("me/b:1", ("model", weights))
    async with library(tmp_path, registry.url) as house:
        await house.pull("a")
        asked = len(registry.blob_requests())
        lines = await house.pull("me/b:1")
        assert house.names() == ["a", "me/b:1"]
    assert [one for one in lines if one.get("digest") == digest_of(weights)] == [
        {
            "status": f"pulling {digest_of(weights)[7:19]}",
            "digest": digest_of(weights),
            "total": len(weights),
            "completed": len(weights),
        }
    ]
    assert len(registry.blob_requests()) == asked + 1  # b's own configuration


async def test_a_download_that_is_cut_goes_on_where_it_was(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["cut", "cut", "status 503"]
    async with library(tmp_path, registry.url) as house:
        lines = await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights
    first, second, third, fourth = registry.requests(digest_of(weights))
    assert "Range" not in first.headers
    starts = [int(one.headers["Range"].removeprefix("bytes=").removesuffix("-")) for one in (second, third, fourth)]
    assert 0 < starts[0] < starts[1] == starts[2] < len(weights)
    assert {one.headers["If-Range"] for one in (second, third, fourth)} == {'"one"'}
    done = [line["completed"] for line in lines if line.get("digest") == digest_of(weights) and "completed" in line]
    assert done == sorted(done)


@pytest.mark.parametrize("mood", ["rangeless", "status 416"])
async def test_a_server_that_ignores_ranges_is_read_from_the_start(
    tmp_path: Path, registry: Registry, mood: str
) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["cut", mood]
    async with library(tmp_path, registry.url) as house:
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights


async def test_a_file_that_changed_meanwhile_is_read_from_the_start(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["stall"]
    async with library(tmp_path, registry.url) as house:
        first = asyncio.gather(house.pull("a"), return_exceptions=True)
        await registry.waiting.wait()
        part = house.root / part_of(weights)
        await eventually(lambda: part.exists() and part.stat().st_size > 1_000_000)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        registry.etag = '"two"'
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights
    assert registry.requests(digest_of(weights))[-1].headers["If-Range"] == '"one"'


async def test_a_silent_server_is_asked_again(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["stall"]
    async with library(tmp_path, registry.url, patience=Patience(stall_seconds=0.3, pause_seconds=0.01)) as house:
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights
    assert len(registry.requests(digest_of(weights))) == 2


async def test_one_that_always_breaks_off_is_given_up(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/a", ("model", model_bytes(tmp_path)))
    registry.moods = ["status 500"] * 50
    async with library(tmp_path, registry.url, patience=Patience(pause_seconds=0.001)) as house:
        with pytest.raises(PullFailed, match="again and again: the server says 500"):
            await house.pull("a")
        assert house.names() == []


async def test_s22_wrong_bytes_leave_nothing(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["lie"]
    async with library(tmp_path, registry.url) as house:
        with pytest.raises(PullFailed, match="digest mismatch, file must be downloaded again: want sha256:"):
            await house.pull("a")
        blob = part_of(weights).removesuffix(".part")
        assert [name for name in house.left() if name.startswith((blob, "manifests"))] == []
        assert (house.names(), house.changes) == ([], [])
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("short", "the file has .* bytes, and should have"),
        ("chunked", "the file is longer than"),
        ("elsewhere", "another part"),
        ("status 404", "file does not exist"),
        ("status 403", "access denied"),
        ("status 418", "the server says 418"),
        ("redirect file:///etc/passwd", "may not be asked"),
        ("redirect http://user:secret@example.com/", "may not be asked"),
        ("redirect PATH", "too many redirects"),
    ],
)
async def test_wrong_answers_install_nothing(tmp_path: Path, registry: Registry, mood: str, reason: str) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["cut"] * (mood == "elsewhere") + [mood] * 11
    async with library(tmp_path, registry.url) as house:
        with pytest.raises(PullFailed, match=reason):
            await house.pull("a")
        assert house.names() == []
        assert not [name for name in house.left() if not name.endswith((".part", ".part.etag"))]
        registry.moods = []
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../evil", "size": 4}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../../evil", "size": 4}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "A" * 64, "size": 4}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "a" * 65, "size": 4}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256-" + "a" * 64, "size": 4}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "a" * 64, "size": -4}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "a" * 64, "size": 1e99}]},
        {"layers": [{"mediaType": "application/vnd.ollama.image.tensor", "digest": "sha256:" + "a" * 64, "size": 4}]},
        {"layers": "none"},
        {"layers": []},
        {"config": {"mediaType": "x", "digest": "sha256:/etc/passwd", "size": 1}},
    ],
)
async def test_a_manifest_that_cannot_be_meant_is_refused(
    tmp_path: Path, registry: Registry, change: dict[str, Any]
) -> None:
    registry.offer("library/a", ("model", model_bytes(tmp_path)), manifest=change)
    registry.files["/evil"] = b"evil"
    async with library(tmp_path, registry.url) as house:
        with pytest.raises(PullFailed, match=r"^pull model manifest: "):
            await house.pull("a")
    assert house.left() == []
    assert not [path for path in registry.asked if "evil" in path.path]


async def test_an_unknown_model_is_told_as_ollama_does(tmp_path: Path, registry: Registry) -> None:
    async with library(tmp_path, registry.url) as house:
        lines = house.library.pull("nothing")
        assert await anext(lines) == {"status": "pulling manifest"}
        with pytest.raises(PullFailed, match=r"^pull model manifest: file does not exist$"):
            await anext(lines)


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b/c/d", "a:b:c", "x/..", "/etc/passwd", "a\\b", "a\x00", "%2e%2e/x", "a:99999/b/c"]
)
async def test_what_is_no_name_is_refused_before_anything_is_asked(
    tmp_path: Path, registry: Registry, name: str
) -> None:
    async with library(tmp_path, registry.url) as house:
        with pytest.raises(InvalidRequest, match=r"^invalid model name$"):
            await house.pull(name)
    assert registry.asked == []


async def test_s23_redirects_lead_to_public_places_only(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path)
    registry.offer("library/a", ("model", weights))
    async with served(cdn := Registry(files=dict(registry.files))):
        registry.moods = [f"redirect {cdn.url}PATH"]
        async with library(tmp_path, registry.url) as house:
            with pytest.raises(PullFailed, match="not public"):
                await house.pull("a")
        assert cdn.asked == []
        registry.moods = [f"redirect {cdn.url}PATH"]
        async with library(tmp_path, registry.url, outbound={"allow_cidrs": ["127.0.0.0/8"]}) as house:
            await house.pull("a")
            assert house.catalog.find("a").path.read_bytes() == weights
        assert len(cdn.requests(digest_of(weights))) == 1


async def test_s23_redirects_never_lead_to_our_own_doors(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/a", ("model", model_bytes(tmp_path)))
    async with served(door := Registry(files=dict(registry.files))):
        registry.moods = [f"redirect {door.url}PATH"]
        own = {"own_ports": [int(door.url.rpartition(":")[2])], "outbound": {"allow_cidrs": ["127.0.0.0/8"]}}
        async with library(tmp_path, registry.url, **own) as house:
            with pytest.raises(PullFailed, match="not public"):
                await house.pull("a")
        assert door.asked == []


async def test_s10_a_registry_that_a_name_names_is_no_way_in(tmp_path: Path, registry: Registry) -> None:
    """Only the registry that the owner has named may be private."""
    registry.offer("library/a", ("model", model_bytes(tmp_path)))
    async with library(tmp_path) as house:
        host = registry.url.removeprefix("http://")
        async with aclosing(house.library.pull(f"{host}/library/a", insecure=True)) as lines:
            assert await anext(lines) == {"status": "pulling manifest"}
            with pytest.raises(PullFailed, match="not public"):
                await anext(lines)
    assert registry.asked == []


async def test_a_disk_without_room_is_known_before(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    needed = sum(len(data) for path, data in registry.files.items() if "/blobs/" in path)
    async with library(tmp_path, registry.url, free=lambda _: needed) as house:  # but for the reserve
        with pytest.raises(NoRoom, match="no space left on device"):
            await house.pull("a")
        assert (registry.blob_requests(), house.left()) == ([], [])
    async with library(tmp_path, registry.url, free=lambda _: int(needed * 1.06)) as house:
        await house.pull("a")
        assert house.names() == ["a"]


async def test_a_disk_that_fills_up_leaves_what_is_there(tmp_path: Path, registry: Registry) -> None:
    """The system refuses to write more, in a process whose files may not grow as large as the model."""
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    command = [sys.executable, PULL, tmp_path, registry.url, "a", "1500000"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert said.decode().strip() == "NoRoom: no space left on device"
    assert (tmp_path / "library" / part_of(weights)).stat().st_size == 1_500_000
    async with library(tmp_path, registry.url) as house:
        assert house.names() == []
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights
    assert registry.requests(digest_of(weights))[-1].headers["Range"] == "bytes=1500000-"


async def test_two_pulls_of_one_model_are_one(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["pause"]
    async with library(tmp_path, registry.url) as house:
        first = asyncio.gather(house.pull("a"))
        await registry.waiting.wait()
        second = asyncio.gather(house.pull("registry.ollama.ai/library/A:latest"))
        async with aclosing(house.library.pull("a")) as third:
            assert await anext(third) == {"status": "pulling manifest"}
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        registry.go_on.set()
        ((*_, last),) = await second
    assert last == {"status": "success"}
    assert len(registry.requests(digest_of(weights))) == 1
    assert len(registry.requests("/manifests/")) == 1


async def test_two_models_that_share_a_file_bring_it_once(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights), ("system", b"one"))
    registry.offer("library/b", ("model", weights), ("system", b"two"))
    registry.moods = ["pause"]
    async with library(tmp_path, registry.url) as house:
        both = asyncio.gather(house.pull("a"), house.pull("b"))
        await eventually(lambda: len(registry.requests("/manifests/")) == 2)
        registry.go_on.set()
        await both
        assert house.names() == ["a", "b"]
        assert [house.catalog.find(name).preset.system for name in "ab"] == ["one", "two"]
    assert len(registry.requests(digest_of(weights))) == 1


async def test_when_the_last_caller_leaves_the_pull_ends_and_the_next_goes_on(
    tmp_path: Path, registry: Registry
) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["stall"]
    async with library(tmp_path, registry.url) as house:
        async with aclosing(house.library.pull("a")) as lines:
            async for line in lines:
                if line.get("completed", 0) > 1_000_000:
                    break
        await eventually(lambda: registry.left == 1, 3)  # and not only when the silence has lasted too long
        part = house.root / part_of(weights)
        lines_again = await house.pull("a")
        assert lines_again[-1] == {"status": "success"}
        assert not part.exists()
    again = registry.requests(digest_of(weights))[1]
    assert int(again.headers["Range"].removeprefix("bytes=").removesuffix("-")) > 1_000_000


async def test_what_a_pull_needs_stays_when_another_model_is_deleted(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/a", ("model", model_bytes(tmp_path, 1)), ("system", b"shared"))
    registry.offer("library/b", ("model", model_bytes(tmp_path, 2, BIG)), ("system", b"shared"))
    async with library(tmp_path, registry.url) as house:
        await house.pull("a")
        registry.moods = ["pause"]
        caller = asyncio.gather(house.pull("b"))
        await registry.waiting.wait()
        await house.library.delete("a")
        registry.go_on.set()
        await caller
        assert house.names() == ["b"]
        assert house.catalog.find("b").preset.system == "shared"


async def test_when_the_library_closes_callers_are_told(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/a", ("model", model_bytes(tmp_path, size=BIG)))
    registry.moods = ["stall"]
    async with library(tmp_path, registry.url) as house:
        caller = asyncio.gather(house.pull("a"))
        await registry.waiting.wait()
    with pytest.raises(ShuttingDown):
        await caller


async def test_a_tag_that_moved_leaves_no_old_layers(tmp_path: Path, registry: Registry) -> None:
    old, new, shared = model_bytes(tmp_path, 1), model_bytes(tmp_path, 2), b"be kind"
    registry.offer("library/a", ("model", old), ("system", shared))
    async with library(tmp_path, registry.url) as house:
        await house.pull("a")
        registry.offer("library/A", ("model", new), ("system", shared))
        assert "removing unused layers" in statuses(await house.pull("A"))
        blobs = [name for name in house.left() if name.startswith("blobs/")]
        assert part_of(new).removesuffix(".part") in blobs
        assert part_of(old).removesuffix(".part") not in blobs
        assert house.catalog.find("a").preset.system == "be kind"
        assert [name for name in house.left() if name.startswith("manifests/")] == [
            "manifests/registry.ollama.ai/library/a/latest"
        ]


async def test_a_pull_that_is_killed_goes_on(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/a", ("model", weights))
    registry.moods = ["stall"]
    process = await asyncio.create_subprocess_exec(sys.executable, PULL, tmp_path, registry.url, "a")
    part = tmp_path / "library" / part_of(weights)
    await eventually(lambda: part.exists() and part.stat().st_size >= 1_000_000, 20)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with library(tmp_path, registry.url) as house:
        assert house.names() == []
        await house.pull("a")
        assert house.catalog.find("a").path.read_bytes() == weights
    last = registry.requests(digest_of(weights))[-1]
    assert int(last.headers["Range"].removeprefix("bytes=").removesuffix("-")) >= 1_000_000


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ("http://127.0.0.1:9", r"127\.0\.0\.1 cannot be reached; is this machine online\?"),
        ("http://nowhere.invalid", r"nowhere\.invalid: its name is not known; is this machine online\?"),
    ],
    ids=["nobody listens", "unknown name"],
)
async def test_a_host_that_is_not_there_is_named(tmp_path: Path, registry: str, said: str) -> None:
    async with library(tmp_path, registry) as house:
        with pytest.raises(PullFailed, match=said):
            await house.pull("model")
