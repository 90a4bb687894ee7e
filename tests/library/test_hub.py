"""Models from Hugging Face: which files are chosen, and that they come from the hub alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamarunner.library import PullFailed
from llamarunner.library.hub import File, choose, projector
from tests.library.places import Hub, digest_of, library, model_bytes, served
from tests.programs.write_gguf import write_projector
from tests.test_catalog_scan import shards

REPOSITORY = "owner/Tiny-GGUF"
TOKEN = "hf_secret"


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    server = Hub()
    async with served(server):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def files(*names: str) -> list[File]:
    """Files of which each is larger than the one before."""
    return [File(name, size, "0" * 64) for size, name in enumerate(names, start=1)]


@pytest.mark.parametrize(
    ("tag", "there", "chosen"),
    [
        ("latest", ["m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-Q2_K.gguf"], ["m-Q4_K_M.gguf"]),
        ("latest", ["m-Q2_K.gguf", "m-Q8_0.gguf", "m-bf16.gguf"], ["m-Q8_0.gguf"]),
        ("latest", ["m-F32.gguf", "m-Q2_K.gguf"], ["m-F32.gguf"]),
        ("latest", ["m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf"], ["m-Q4_K_M.gguf"]),
        ("q8_0", ["m-Q8_0.gguf", "m-Q4_K_M.gguf"], ["m-Q8_0.gguf"]),
        ("Q4_K_XL", ["m-UD-Q4_K_XL.gguf"], ["m-UD-Q4_K_XL.gguf"]),
        ("m-Q2_K.gguf", ["m-Q2_K.gguf", "m-Q4_K_M.gguf"], ["m-Q2_K.gguf"]),
        ("M-Q2_K", ["sub/m-Q2_K.gguf", "m-Q4_K_M.gguf"], ["sub/m-Q2_K.gguf"]),
        (
            "Q8_0",
            ["Q8_0/m-00002-of-00002.gguf", "Q8_0/m-00001-of-00002.gguf", "m-Q4_K_M.gguf"],
            ["Q8_0/m-00001-of-00002.gguf", "Q8_0/m-00002-of-00002.gguf"],
        ),
        ("latest", ["m-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf"], ["m-Q8_0.gguf"]),
        ("latest", ["mmproj-F16.gguf", "m.imatrix.gguf", "README.md", "model.gguf"], ["model.gguf"]),
    ],
)
def test_the_file_that_a_tag_means_is_chosen(tag: str, there: list[str], chosen: list[str]) -> None:
    assert [file.path for file in choose(files(*there), tag)] == chosen


def test_a_tag_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(PullFailed, match=r"no Q5_K_M; it has Q4_0, Q8_0$"):
        choose(files("m-Q8_0.gguf", "m-Q4_0.gguf"), "Q5_K_M")
    with pytest.raises(PullFailed, match="no GGUF files"):
        choose(files("model.safetensors", "mmproj-F16.gguf"), "latest")


def test_of_several_projectors_the_usual_one_is_chosen() -> None:
    there = files("mmproj-m-Q8_0.gguf", "mmproj-m-F32.gguf", "mmproj-m-f16.gguf", "m-Q4_0.gguf")
    assert [file.path for file in projector(there)] == ["mmproj-m-f16.gguf"]
    assert projector(files("m-Q4_0.gguf")) == []


@pytest.mark.parametrize("host", ["hf.co", "huggingface.co"])
async def test_a_model_is_pulled_from_the_hub(tmp_path: Path, hub: Hub, host: str) -> None:
    usual, other = model_bytes(tmp_path, 1), model_bytes(tmp_path, 2)
    eyes = write_projector(tmp_path / "mmproj.gguf").read_bytes()
    hub.offer(REPOSITORY, {"tiny-Q4_K_M.gguf": usual, "tiny-Q8_0.gguf": other, "mmproj-F16.gguf": eyes})
    async with library(tmp_path) as house:
        lines = await house.pull(f"{host}/{REPOSITORY}")
        entry = house.catalog.find(f"{host}/{REPOSITORY}")
        assert entry.mmproj
        assert (entry.path.read_bytes(), entry.mmproj.read_bytes()) == (usual, eyes)
        assert (entry.title, entry.error) == (f"{host}/{REPOSITORY}:latest", None)
        await house.pull(f"{host}/{REPOSITORY}:Q8_0")
        assert house.catalog.find(f"{host}/{REPOSITORY}:Q8_0").path.read_bytes() == other
    told = [line["status"] for line in lines]
    assert (told[0], told[-1]) == ("pulling manifest", "success")
    assert f"pulling {digest_of(usual)[7:19]}" in told
    assert {one.headers["Authorization"] for one in hub.asked} == {f"Bearer {TOKEN}"}


async def test_a_speech_model_is_said_to_be_one(tmp_path: Path, hub: Hub) -> None:
    hub.offer(REPOSITORY, {"model.bin": b"weights", "config.json": b"{}"})
    async with library(tmp_path) as house:
        with pytest.raises(PullFailed, match=rf"no GGUF files, .* `hf download {REPOSITORY}`"):
            await house.pull(f"hf.co/{REPOSITORY}")


async def test_s07_a_token_stays_with_the_hub(tmp_path: Path, hub: Hub) -> None:
    weights = model_bytes(tmp_path)
    hub.offer(REPOSITORY, {"tiny.gguf": weights})
    async with served(cdn := Hub(files=dict(hub.files))):
        hub.moods = [f"redirect {hub.url}PATH", f"redirect {cdn.url}PATH?X-Signature=a%2Fb%3D"]
        async with library(tmp_path, outbound={"allow_cidrs": ["127.0.0.0/8"]}) as house:
            await house.pull(f"hf.co/{REPOSITORY}")
            assert house.catalog.find(f"hf.co/{REPOSITORY}").path.read_bytes() == weights
        (asked,) = cdn.asked
    assert "Authorization" not in asked.headers
    assert all(one.headers["Authorization"] == f"Bearer {TOKEN}" for one in hub.asked)


async def test_s23_the_hub_leads_to_no_private_place(tmp_path: Path, hub: Hub) -> None:
    hub.offer(REPOSITORY, {"tiny.gguf": model_bytes(tmp_path)})
    async with served(private := Hub(files=dict(hub.files))):
        hub.moods = [f"redirect {private.url}PATH"]
        async with library(tmp_path) as house:
            with pytest.raises(PullFailed, match="not public"):
                await house.pull(f"hf.co/{REPOSITORY}")
        assert private.asked == []


async def test_a_model_in_several_files_is_pulled_and_deleted_whole(tmp_path: Path, hub: Hub) -> None:
    parts = shards(tmp_path / "made", 3)
    hub.offer(REPOSITORY, {f"Q8_0/{path.name}": path.read_bytes() for path in parts})
    async with library(tmp_path) as house:
        await house.pull(f"hf.co/{REPOSITORY}:Q8_0")
        entry = house.catalog.find(f"hf.co/{REPOSITORY}:q8_0")
        assert (entry.error, [path.read_bytes() for path in entry.files]) == (None, [one.read_bytes() for one in parts])
        assert [path.name for path in entry.files] == [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
        await house.library.copy(f"hf.co/{REPOSITORY}:Q8_0", "big")
        await house.library.delete(f"hf.co/{REPOSITORY}:Q8_0")
        assert house.catalog.find("big").files == entry.files
        await house.library.delete("big")
        assert house.left() == []


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((404, {"X-Error-Code": "RepoNotFound"}), r"^pull model manifest: file does not exist$"),
        ((401, {"X-Error-Code": "RepoNotFound"}), r"^pull model manifest: file does not exist$"),
        ((403, {"X-Error-Code": "GatedRepo"}), "access denied: accept the model's terms"),
        ((500, {}), "127.0.0.1 says 500"),
    ],
)
async def test_what_the_hub_refuses_is_told(
    tmp_path: Path, hub: Hub, refusal: tuple[int, dict[str, str]], reason: str
) -> None:
    hub.refusal = refusal
    async with library(tmp_path) as house:
        with pytest.raises(PullFailed, match=reason):
            await house.pull(f"hf.co/{REPOSITORY}")


@pytest.mark.parametrize(
    "change",
    [
        {"lfs": {"sha256": "../../../evil", "size": 4, "pointerSize": 1}},
        {"lfs": {"sha256": "a" * 64, "size": -4, "pointerSize": 1}},
        {"lfs": {"sha256": "a" * 64, "size": "many", "pointerSize": 1}},
        {"lfs": None},
        {"rfilename": "../../../evil.gguf"},
    ],
)
async def test_what_the_hub_cannot_mean_is_refused(tmp_path: Path, hub: Hub, change: dict[str, object]) -> None:
    hub.offer(REPOSITORY, {"tiny.gguf": model_bytes(tmp_path)})
    hub.repositories[REPOSITORY][0] |= change
    async with library(tmp_path) as house:
        with pytest.raises(PullFailed, match="pull model manifest"):
            await house.pull(f"hf.co/{REPOSITORY}")
        assert house.left() == []


async def test_a_hub_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    async with library(tmp_path) as house:
        with pytest.raises(PullFailed, match=r"127\.0\.0\.1 cannot be reached; is this machine online\?"):
            await house.pull(f"hf.co/{REPOSITORY}")


async def test_repositories_are_found_by_what_their_names_have(tmp_path: Path, hub: Hub) -> None:
    hub.offer(REPOSITORY, {})
    hub.offer("owner/other", {})
    async with library(tmp_path) as house:
        assert await house.library.search("tiny", 5) == [REPOSITORY]
        assert await house.library.search("", 1) == [REPOSITORY]
        hub.refusal = 403, {}  # which the hub's library does not ask again
        with pytest.raises(PullFailed, match="says 403"):
            await house.library.search("tiny", 5)


async def test_the_models_of_a_repository_are_told_the_usual_one_first(tmp_path: Path, hub: Hub) -> None:
    shards = {f"big/m-Q8_0-0000{at}-of-00002.gguf": b"x" * 10 for at in (1, 2)}
    hub.offer(
        REPOSITORY, {"m-Q2_K.gguf": b"x", **shards, "m-Q4_K_M.gguf": b"xx", "mmproj-F16.gguf": b"x", "odd.gguf": b"x"}
    )
    async with library(tmp_path) as house:
        told = [(one.tag, one.quantization, one.size, one.usual) for one in await house.library.choices(REPOSITORY)]
    assert told[:2] == [("Q4_K_M", "Q4_K_M", 2, True), ("Q8_0", "Q8_0", 20, False)]
    assert sorted(told[2:], key=str) == [("Q2_K", "Q2_K", 1, False), ("odd", None, 1, False)]
