"""Models are found by every name they have, demo models step back, and the catalog follows the disk."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llamarunner.catalog import Catalog, Places, Source
from llamarunner.config import Settings
from llamarunner.errors import ModelNotFound
from tests.programs.write_gguf import write_embedding_model, write_model
from tests.test_catalog_discover import machine, ollama_model, touch

MODELS = "bartowski/Qwen2.5-7B-Instruct-GGUF"


def catalog(root: Path, demo: Path | None = None, **settings: Any) -> Catalog:
    chosen = Settings.model_validate({"catalog": {"folders": [root / "m"], **settings}})
    places = Places(root / "home", {}, demo=demo, root=root / "system")
    return Catalog(chosen, places)


def scanned(root: Path, **settings: Any) -> Catalog:
    built = catalog(root, **settings)
    built.scan()
    return built


@pytest.mark.parametrize(
    "name",
    [
        "qwen2.5-7b-instruct",
        "Qwen2.5-7B-Instruct",
        " qwen2.5-7b-instruct ",
        "qwen2.5-7b-instruct:latest",
        "qwen2.5-7b-instruct-q4_k_m",
        "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
        "Qwen2.5-7B-Instruct-Q4_K_M",
        "bartowski/qwen2.5-7b-instruct",
        "bartowski/Qwen2.5-7B-Instruct-GGUF",
        "bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M",
        "bartowski/Qwen2.5-7B-Instruct-GGUF/Qwen2.5-7B-Instruct-Q4_K_M.gguf",
        "GPT-4o",
        "gpt-4o:latest",
        "through-a-file-name",
    ],
)
def test_a_model_answers_to_all_its_names(tmp_path: Path, name: str) -> None:
    path = write_model(tmp_path / "m" / MODELS / "Qwen2.5-7B-Instruct-Q4_K_M.gguf")
    write_model(tmp_path / "m/other.gguf")
    aliases = {"gpt-4o": "qwen2.5-7b-instruct", "Through-a-file-name": "Qwen2.5-7B-Instruct-Q4_K_M.gguf"}
    assert scanned(tmp_path, aliases=aliases).find(name).path == path


@pytest.mark.parametrize("name", ["", "nothing", "../m/a", "a/b/c", "\0", "dangling", ":latest", "a" * 100_000])
def test_an_unknown_name_tells_which_are_known(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "m/a.gguf")
    touch(tmp_path / "m/broken.gguf", b"?")
    with pytest.raises(ModelNotFound, match=r"Available: a\.$" if name else "No model was named"):
        scanned(tmp_path, aliases={"dangling": "gone"}).find(name)


def test_an_alias_may_lead_to_another(tmp_path: Path) -> None:
    write_model(tmp_path / "m/c.gguf")
    known = scanned(tmp_path, aliases={"a": "b", "b": "c:latest", "c": "c:latest", "x": "y:latest", "y": "x"})
    for name in ("a", "b", "c", "A:latest"):
        assert known.find(name).id == "c"
    with pytest.raises(ModelNotFound):
        known.find("x")


def test_an_alias_wins_over_an_id(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / f"m/{name}.gguf")
    assert scanned(tmp_path, aliases={"a": "b", "b": "a"}).find("a").id == "b"


def test_a_broken_model_is_found(tmp_path: Path) -> None:
    touch(tmp_path / "m/bad.gguf", b"?")
    assert scanned(tmp_path).find("bad").error == "not a GGUF file"


def test_a_name_that_fits_several_means_the_usual_quantisation_of_a_healthy_one(tmp_path: Path) -> None:
    for name, file_type in (("Q2_K", 10), ("Q4_K_M", 15), ("Q8_0", 7)):
        write_model(tmp_path / f"m/a-{name}.gguf", {"general.file_type": file_type})
    built = scanned(tmp_path)
    assert [entry.id for entry in built.entries] == ["a-q2_k", "a-q4_k_m", "a-q8_0"]
    assert built.find("a").id == "a-q4_k_m"
    assert built.find("a:Q8_0").id == "a-q8_0"
    touch(tmp_path / "m/a-Q4_K_M.gguf", b"?")
    built.scan()
    assert built.find("a").id == "a-q2_k"


def test_an_ollama_model_is_found_by_ollamas_names(tmp_path: Path) -> None:
    content = write_model(tmp_path / "a.gguf").read_bytes()
    ollama_model(tmp_path / "home/.ollama/models", "registry.ollama.ai/library/llama3.2/latest", content)
    built = scanned(tmp_path)
    for name in ("llama3.2", "Llama3.2:latest", "library/llama3.2:latest", "library/llama3.2"):
        assert built.find(name).id == "llama3.2", name


@pytest.mark.parametrize(
    ("setting", "alone", "beside_a_broken_one", "beside_a_good_one"),
    [
        ("auto", ["demo-x"], ["bad", "demo-x"], ["bad", "good"]),
        ("show", ["demo-x"], ["bad", "demo-x"], ["bad", "demo-x", "good"]),
        ("hide", [], ["bad"], ["bad", "good"]),
    ],
)
def test_demo_models_step_back(
    tmp_path: Path, setting: str, alone: list[str], beside_a_broken_one: list[str], beside_a_good_one: list[str]
) -> None:
    write_model(tmp_path / "demo/demo-x.gguf")
    built = catalog(tmp_path, demo=tmp_path / "demo", demo_models=setting, folders=[tmp_path / "m", tmp_path / "demo"])
    assert [entry.id for entry in built.scan()] == alone
    touch(tmp_path / "m/bad.gguf", b"?")
    assert [entry.id for entry in built.scan()] == beside_a_broken_one
    write_model(tmp_path / "m/good.gguf")
    assert [entry.id for entry in built.scan()] == beside_a_good_one
    assert built.find("demo-x").source is Source.DEMO


def test_demo_models_step_back_for_models_of_their_kind(tmp_path: Path) -> None:
    write_model(tmp_path / "demo/demo-chat.gguf")
    write_embedding_model(tmp_path / "demo/demo-embed.gguf")
    built = catalog(tmp_path, demo=tmp_path / "demo")
    write_embedding_model(tmp_path / "m/own-embed.gguf")
    assert [entry.id for entry in built.scan()] == ["demo-chat", "own-embed"]
    write_model(tmp_path / "m/own-chat.gguf")
    assert [entry.id for entry in built.scan()] == ["own-chat", "own-embed"]


def test_a_copy_of_a_demo_model_hides_none(tmp_path: Path) -> None:
    original = write_model(tmp_path / "demo/demo-chat.gguf")
    content = original.read_bytes()
    store = tmp_path / "library"
    ollama_model(store, "registry.ollama.ai/library/mine/latest", content)
    built = catalog(tmp_path, demo=tmp_path / "demo", library=store)
    assert [entry.id for entry in built.scan()] == ["mine"], "a file of its own"
    blob = store / "blobs" / f"sha256-{hashlib.sha256(content).hexdigest()}"
    blob.unlink()
    blob.hardlink_to(original)
    assert [entry.id for entry in built.scan()] == ["demo-chat", "mine"]


def test_the_bundled_models_are_found_with_no_settings(tmp_path: Path) -> None:
    built = Catalog(Settings(), Places(tmp_path, {}, demo=Places.here().demo, root=tmp_path))
    assert "demo-chat" in [entry.id for entry in built.scan()]
    assert built.find("demo-chat").error is None


def test_readers_never_see_half_a_scan(tmp_path: Path) -> None:
    """Two states of the disk alternate; whoever reads meanwhile sees the one or the other."""
    built = scanned(tmp_path)
    seen: set[tuple[str, ...]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(tuple(entry.id for entry in built.entries))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(20):
            paths = [write_model(tmp_path / f"m/{name}.gguf") for name in "abc"]
            built.scan()
            for path in paths:
                path.unlink()
            built.scan()
    finally:
        done.set()
        reader.join()
    assert seen <= {(), ("a", "b", "c")}


@asynccontextmanager
async def watching(built: Catalog, rescan_seconds: float = 60.0) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(built.watch(lambda: None, rescan_seconds))
        try:
            yield
        finally:
            task.cancel()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - the catalog tells nobody when it has changed
            await asyncio.sleep(0.01)


async def test_models_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    first = write_model(tmp_path / "m/first.gguf")
    built = catalog(tmp_path)

    def ids() -> list[str]:
        return [entry.id for entry in built.entries]

    async with watching(built):
        await until(lambda: ids() == ["first"])
        write_model(tmp_path / "m/deep/second.gguf")
        await until(lambda: ids() == ["first", "second"])
        first.unlink()
        await until(lambda: ids() == ["second"])


async def test_a_folder_that_appears_later_is_watched(tmp_path: Path) -> None:
    built = catalog(tmp_path)
    async with watching(built, rescan_seconds=0.02):
        await until(lambda: built.entries == ())
        write_model(tmp_path / "m/late.gguf")
        await until(lambda: [entry.id for entry in built.entries] == ["late"])
        (tmp_path / "m").rename(tmp_path / "away")
        await until(lambda: built.entries == ())


async def test_watching_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    async with asyncio.timeout(5), watching(catalog(tmp_path)):
        await asyncio.sleep(0.02)


def test_places_of_tests_are_not_those_of_this_machine(tmp_path: Path) -> None:
    assert Catalog(Settings(), machine(tmp_path)).scan() == ()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_while_no_file_can_be_opened_the_models_stay_as_they_were_known(tmp_path: Path) -> None:
    import resource

    write_model(tmp_path / "m" / "kept.gguf")
    built = scanned(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
    try:
        entries = built.scan()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [(entry.id, entry.error) for entry in entries] == [("kept", None)]
