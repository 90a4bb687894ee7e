"""Models are made of others, copied and deleted, and nobody else's files change."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import llamarunner.library
from llamarunner import app
from llamarunner.catalog import Catalog, Source
from llamarunner.catalog.manifests import SMALL_BYTES
from llamarunner.config import bundled
from llamarunner.dialects.ollama.errors import WrongOption
from llamarunner.errors import Forbidden, InvalidRequest, LlamaRunnerError
from llamarunner.events import Bus
from llamarunner.fleet.launcher import Launcher
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.library import InvalidDigest, Library, Line, NotInstalled, PullFailed, Recipe
from llamarunner.outbound import Outbound
from llamarunner.server.client import Client
from tests.conftest import eventually, fake_settings
from tests.library.places import House, Registry, digest_of, library, model_bytes, served
from tests.programs.write_gguf import write_gguf, write_model, write_projector
from tests.test_catalog_discover import machine, ollama_model, touch
from tests.test_catalog_manifests import evil
from tests.test_catalog_scan import shards


def with_folder(root: Path, *names: str) -> dict[str, Any]:
    """A folder of the person's with models; the settings that have it read."""
    for name in names:
        write_model(root / "own" / f"{name}.gguf", {"general.name": name})
    return {"folders": [str(root / "own")]}


async def create(house: House, name: str, **recipe: Any) -> list[Line]:
    async with aclosing(house.library.create(Recipe(name, **recipe))) as lines:
        return [line async for line in lines]


async def upload(house: House, data: bytes) -> str:
    async def once() -> AsyncIterator[bytes]:
        yield data

    await house.library.put_blob(digest_of(data), once())
    return digest_of(data)


async def test_speech_models_are_not_copied_but_may_have_other_names(tmp_path: Path) -> None:
    shutil.copytree(bundled("models") / "demo-whisper", tmp_path / "own" / "ear")
    async with library(tmp_path, catalog={"folders": [str(tmp_path / "own")]}) as house:
        assert house.catalog.find("ear").error is None
        for wanted, param in (
            (house.library.copy("ear", "other"), "source"),
            (create(house, "other", from_="ear"), "from"),
        ):
            with pytest.raises(InvalidRequest, match=r"'ear' is a speech model .* with catalog\.aliases$") as told:
                await wanted
            assert told.value.param == param
        assert [entry.id for entry in house.catalog.entries] == ["ear"]


async def test_a_model_is_made_of_one_in_a_folder_without_copying_it(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        lines = await create(
            house,
            "Mario",
            from_="tiny",
            system="You are Mario.",
            template="{{ .Prompt }}",
            parameters={"temperature": 0.5, "stop": ["x"]},
            messages=({"role": "user", "content": "hi"},),
            license=("MIT", "BSD"),
        )
        made, source = house.catalog.find("mario"), house.catalog.find("tiny")
        again = await create(house, "luigi", from_="mario", parameters={"temperature": 1}, license=("GPL",))
        luigi = house.catalog.find("luigi")
    data = source.path.read_bytes()
    said = [line["status"] for line in lines]
    assert said[:2] == ["parsing GGUF", f"using existing layer {digest_of(data)}"]
    assert [one.rpartition(" ")[0] for one in said[2:-2]] == ["creating new layer"] * 7
    assert said[-2:] == ["writing manifest", "success"]
    assert (made.id, made.title, made.source, made.error) == ("mario", "Mario:latest", Source.LIBRARY, None)
    assert made.path.samefile(source.path)
    assert (source.id, source.source, source.preset.system) == ("tiny", Source.FOLDER, "")
    preset = made.preset
    assert (preset.system, preset.template, preset.license) == ("You are Mario.", "{{ .Prompt }}", ("MIT", "BSD"))
    assert preset.parameters == {"temperature": 0.5, "stop": ["x"]}
    assert preset.messages == ({"role": "user", "content": "hi"},)
    assert again[0] == {"status": f"using existing layer {digest_of(data)}"}
    assert luigi.preset.parameters == {"temperature": 1, "stop": ["x"]}
    assert (luigi.preset.system, luigi.preset.license) == ("You are Mario.", ("MIT", "BSD", "GPL"))
    assert luigi.manifest
    assert luigi.digest == hashlib.sha256(luigi.manifest.read_bytes()).hexdigest()
    assert house.changes[-1] == ("luigi", "mario", "tiny")


async def test_a_model_that_is_made_anew_keeps_its_place(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        await create(house, "tiny", from_="tiny", system="one")
        assert house.catalog.find("tiny:latest").preset.system == "one"
        await create(house, "tiny", from_="tiny", system="two")
        assert house.catalog.find("tiny").preset.system == "two"
        systems = [name for name in house.left() if digest_of(b"one")[7:] in name]
        assert systems == []
        await house.library.delete("tiny")
        assert house.catalog.find("tiny").source is Source.FOLDER
    assert (tmp_path / "own/tiny.gguf").exists()


async def test_a_model_is_made_of_uploaded_files(tmp_path: Path) -> None:
    eyes = write_projector(tmp_path / "eyes.gguf").read_bytes()
    adapter = write_gguf(tmp_path / "lora.gguf", "llama", {"general.type": "adapter"}, {}).read_bytes()
    async with library(tmp_path) as house:
        files = {"m.gguf": await upload(house, model_bytes(tmp_path)), "p.gguf": await upload(house, eyes)}
        lines = await create(house, "up", files=files, adapters={"a.gguf": await upload(house, adapter)})
        entry = house.catalog.find("up")
        assert lines[0] == {"status": "parsing GGUF"}
        assert (entry.error, entry.source) == (None, Source.LIBRARY)
        assert entry.mmproj
        assert entry.mmproj.read_bytes() == eyes
        assert [path.read_bytes() for path in entry.adapters] == [adapter]
        await house.library.delete("up")
        assert house.left() == []


async def test_a_model_of_several_files_is_made_of_them(tmp_path: Path) -> None:
    parts = shards(tmp_path / "made", 2)
    async with library(tmp_path, catalog={"folders": [str(tmp_path / "made")]}) as house:
        files = {path.name: await upload(house, path.read_bytes()) for path in parts}
        await create(house, "uploaded", files=files)
        await create(house, "linked", from_="big", system="hi")
        for name in ("uploaded", "linked"):
            entry = house.catalog.find(name)
            assert (entry.error, entry.source) == (None, Source.LIBRARY)
            assert [path.read_bytes() for path in entry.files] == [path.read_bytes() for path in parts]
        with pytest.raises(InvalidRequest, match="not all files of one"):
            await create(house, "wrong", files={**files, "more": await upload(house, model_bytes(tmp_path))})


async def test_a_model_of_ollamas_store_is_borrowed(tmp_path: Path) -> None:
    weights, system = model_bytes(tmp_path), b"from Ollama"
    store = tmp_path / "home/.ollama/models"
    touch(store / "blobs" / digest_of(system).replace(":", "-"), system)
    touch(store / "blobs" / ("sha256-" + "0" * 64), b"template")
    blob = ollama_model(store, "registry.ollama.ai/library/llama3/latest", weights, system=digest_of(system))
    before = sorted(path for path in store.rglob("*"))
    async with library(tmp_path, catalog={"discover": {"ollama": True}}) as house:
        await house.library.copy("llama3", "mine")
        mine = house.catalog.find("mine")
        assert (mine.preset.system, mine.preset.template) == ("from Ollama", "template")
        assert mine.path.samefile(blob)
        assert mine.digest == house.catalog.find("llama3").digest
        await create(house, "yours", from_="llama3", system="mine now")
        assert house.catalog.find("yours").preset.system == "mine now"
        assert house.catalog.find("yours").preset.template == "template"
        with pytest.raises(Forbidden, match="'llama3' belongs to Ollama; only models that LlamaRunner has pulled"):
            await house.library.delete("llama3")
        for name in ("mine", "yours"):
            await house.library.delete(name)
        assert (house.left(), house.names()) == ([], ["llama3"])
    assert sorted(path for path in store.rglob("*")) == before


async def test_copies_share_their_files_and_go_one_by_one(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        await house.library.copy("tiny", "a")
        await house.library.copy("a", "me/b:1")
        await house.library.copy("a", "registry.ollama.ai/library/A:latest")  # itself
        assert house.names() == ["a", "me/b:1", "tiny"]
        assert house.catalog.find("a").path == house.catalog.find("me/b:1").path
        await house.library.delete("A")
        assert house.catalog.find("me/b:1").path.exists()
        await house.library.delete("me/B:1")
        assert house.left() == []
        assert house.changes[-1] == ("tiny",)
    assert (tmp_path / "own/tiny.gguf").exists()


async def test_a_model_that_is_deleted_is_unloaded(tmp_path: Path, fake_llama: Path) -> None:
    settings = fake_settings(tmp_path / "models", fake_llama, {"tiny": []})
    catalog = Catalog(settings, machine(tmp_path))
    await asyncio.to_thread(catalog.scan)
    async with Client() as client, Supervisor(settings, Launcher(settings), app.prober(client), Bus()) as supervisor:

        def changed() -> None:
            supervisor.reconcile(catalog.known)

        outbound = Outbound(settings.outbound, lambda: ())
        async with Library(catalog, outbound, changed, state=tmp_path / "digests.json") as own:
            await own.copy("tiny", "mine")
            for name in ("tiny", "mine"):
                await supervisor.start(catalog.find(name))
            await own.copy("mine", "other")  # touches nobody
            assert sorted(supervisor.loaded()) == ["mine", "tiny"]
            await own.delete("mine")
            await eventually(lambda: supervisor.loaded() == ["tiny"])


async def test_foreign_models_are_never_deleted(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        with pytest.raises(Forbidden, match="is a file in one of your own folders"):
            await house.library.delete("tiny")
    assert (tmp_path / "own/tiny.gguf").exists()


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("", 400, "model is required"),
        ("a/b/c/d", 400, 'name "a/b/c/d" is invalid'),
        ("../x", 400, 'name "../x" is invalid'),
        ("missing", 404, "model 'missing' not found"),
    ],
)
async def test_what_cannot_be_deleted_is_told_as_ollama_does(tmp_path: Path, name: str, status: int, text: str) -> None:
    async with library(tmp_path) as house:
        with pytest.raises(LlamaRunnerError) as told:
            await house.library.delete(name)
    assert (told.value.status, told.value.message) == (status, text)


@pytest.mark.parametrize(
    ("source", "destination", "kind", "text"),
    [
        ("../x", "y", InvalidRequest, 'source "../x" is invalid'),
        ("tiny", "../y", InvalidRequest, 'destination "../y" is invalid'),
        ("missing", "y", NotInstalled, 'model "missing" not found'),
        ("broken", "y", InvalidRequest, "'broken' cannot be used: the file is empty"),
    ],
)
async def test_what_cannot_be_copied_is_told_as_ollama_does(
    tmp_path: Path, source: str, destination: str, kind: type[LlamaRunnerError], text: str
) -> None:
    touch(tmp_path / "own/broken.gguf")
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        with pytest.raises(kind) as told:
            await house.library.copy(source, destination)
        assert (told.value.message, house.names()) == (text, ["broken", "tiny"])


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("recipe", "kind", "text"),
    [
        ({"name": ""}, InvalidRequest, "invalid model name"),
        ({"name": "../x", "from_": "tiny"}, InvalidRequest, "invalid model name"),
        ({"name": "x"}, InvalidRequest, "neither 'from' or 'files' was specified"),
        ({"name": "x", "from_": "tiny", "quantize": "q4_K_M"}, InvalidRequest, "quantize is not supported"),
        ({"name": "x", "files": {"m": "sha256:../../x"}}, InvalidDigest, "invalid digest format"),
        ({"name": "x", "files": {"m": DIGEST}}, InvalidRequest, f'blob "{DIGEST}" not found'),
        ({"name": "x", "from_": "tiny", "adapters": {"m": DIGEST}}, InvalidRequest, f'blob "{DIGEST}" not found'),
        ({"name": "x", "from_": "broken"}, InvalidRequest, "'broken' cannot be used: "),
        (
            {"name": "x", "from_": "tiny", "parameters": {"num_ctx": "many"}},
            WrongOption,
            'option "num_ctx" must be of type integer',
        ),
        (
            {"name": "x", "from_": "tiny", "system": "é" * SMALL_BYTES},
            InvalidRequest,
            "system must have at most 1048576",
        ),
        (
            {"name": "x", "from_": "tiny", "messages": ({"role": "user", "content": "a" * SMALL_BYTES},)},
            InvalidRequest,
            "messages must have at most 1048576",
        ),
        (
            {"name": "x", "from_": "tiny", "license": ("a",) * 101},
            InvalidRequest,
            "license must hold at most 100 texts",
        ),
    ],
)
async def test_a_recipe_that_cannot_be_followed_makes_nothing(
    tmp_path: Path, recipe: dict[str, Any], kind: type[LlamaRunnerError], text: str
) -> None:
    touch(tmp_path / "own/broken.gguf", b"not a model")
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        with pytest.raises(kind) as told:
            await create(house, **recipe)
        assert told.value.message.startswith(text)
        assert [name for name in house.left() if name.startswith("manifests")] == []


async def test_who_deletes_what_somebody_else_has_just_deleted_is_told(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        await house.library.copy("tiny", "mine")
        (house.root / "manifests/registry.ollama.ai/library/mine/latest").unlink()
        with pytest.raises(NotInstalled, match="model 'mine' not found"):
            await house.library.delete("mine")


async def test_a_copy_is_not_spoiled_by_the_end_of_one_that_shares_its_weights(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        old, new = "a", "b"
        await house.library.copy("tiny", old)
        for _ in range(20):
            await asyncio.gather(house.library.delete(old), house.library.copy("tiny", new))
            old, new = new, old


async def test_no_manifest_is_written_that_would_be_too_long_to_read(tmp_path: Path) -> None:
    async with library(tmp_path) as house:
        eyes = await upload(house, write_projector(tmp_path / "eyes.gguf").read_bytes())
        files = {"m": await upload(house, model_bytes(tmp_path)), **{str(count): eyes for count in range(8000)}}
        with pytest.raises(InvalidRequest, match="too many parts"):
            await create(house, "x", files=files)
        assert house.names() == []


async def test_uploads_that_are_no_models_are_refused(tmp_path: Path) -> None:
    async with library(tmp_path) as house:
        text, eyes = b"PK\x03\x04 an archive", write_projector(tmp_path / "eyes.gguf").read_bytes()
        for files, field, said in (
            ({"a.zip": await upload(house, text)}, "files", "'a.zip' cannot be read: "),
            ({"eyes.gguf": await upload(house, eyes)}, "files", "files holds no model"),
            ({"eyes.gguf": await upload(house, eyes)}, "adapters", "'eyes.gguf' is not what adapters may hold"),
        ):
            files_too = {"m": await upload(house, model_bytes(tmp_path))} if field == "adapters" else {}
            with pytest.raises(InvalidRequest) as told:
                await create(house, "x", **{"files": files_too, field: files})
            assert told.value.message.startswith(said)
        assert house.names() == []


async def test_what_a_model_is_made_of_is_pulled_if_need_be(tmp_path: Path) -> None:
    async with served(registry := Registry()):
        registry.offer("library/base", ("model", model_bytes(tmp_path)))
        async with library(tmp_path, registry.url) as house:
            lines = await create(house, "made", from_="base", system="hi")
            assert lines[0] == {"status": "pulling manifest"}
            assert [line for line in lines if line["status"] == "success"] == lines[-1:]
            assert house.names() == ["base", "made"]
            with pytest.raises(PullFailed, match=r"^pull model manifest: file does not exist$"):
                await create(house, "other", from_="nowhere")


async def test_what_is_made_while_another_is_deleted_is_whole_or_not_there(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        for number in range(10):
            await house.library.copy("tiny", f"old{number}")
            done = await asyncio.gather(
                create(house, f"new{number}", from_=f"old{number}", system=str(number)),
                house.library.delete(f"old{number}"),
                return_exceptions=True,
            )
            assert done[1] is None
            if isinstance(done[0], list):
                assert house.catalog.find(f"new{number}").error is None
                assert house.catalog.find(f"new{number}").path.exists()
            else:
                assert isinstance(done[0], LlamaRunnerError)


async def test_a_manifest_that_cannot_be_read_keeps_all_blobs(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        await house.library.copy("tiny", "a")
        blobs = [name for name in house.left() if name.startswith("blobs/")]
        touch(house.root / "manifests/registry.ollama.ai/library/bad/latest", b"{")
        await house.library.delete("a")
        assert [name for name in house.left() if name.startswith("blobs/")] == blobs
        assert "damaged" in str(house.catalog.find("bad").error)
        await house.library.delete("bad")
        assert house.names() == ["tiny"]


async def test_s01_no_name_reaches_what_is_outside(tmp_path: Path) -> None:
    """What the library is told to make, copy or delete stays in its folder, or is refused."""
    touch(tmp_path / "secret/latest", b"keep me")
    outside = {path: path.stat().st_mtime_ns for path in [tmp_path / "secret/latest"]}
    texts = [*random.sample(evil(), 150), "../secret", "../../secret:latest", str(tmp_path / "secret")]
    made = 0
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        refusals = set()
        for text in texts:
            for work in (
                house.library.copy("tiny", text),
                create(house, text, from_="tiny"),
                house.library.delete(text),
            ):
                try:
                    await work
                    made += 1
                except LlamaRunnerError as error:
                    refusals.add(error.status)
        assert refusals <= {400, 403, 404}
        assert set(os.listdir(tmp_path)) <= {"library", "own", "secret", "digests.json"}
        assert all(len(Path(name).parts) == 5 for name in house.left() if name.startswith("manifests/"))
    assert {path: path.stat().st_mtime_ns for path in outside} == outside
    assert made > 0


async def test_a_copied_manifest_stays_as_it_was(tmp_path: Path) -> None:
    async with library(tmp_path, catalog=with_folder(tmp_path, "tiny")) as house:
        await house.library.copy("tiny", "a")
        manifest = house.catalog.find("a").manifest
        assert manifest
        told = json.loads(manifest.read_bytes())
        assert told["schemaVersion"] == 2
        config = house.root / "blobs" / told["config"]["digest"].replace(":", "-")
        assert json.loads(config.read_bytes())["model_family"] == "llama"
        assert house.library.digest(house.catalog.find("a")) == hashlib.sha256(manifest.read_bytes()).hexdigest()


def test_s02_paths_are_made_in_one_place_only() -> None:
    """What a client sends becomes a path by `catalog.manifests.Layout`, so nothing else here makes paths of texts."""
    sources = sorted(Path(llamarunner.library.__file__).parent.glob("*.py"))
    calls = [
        (source.name, node.func.id)
        for source in sources
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert len(sources) > 5
    assert [call for call in calls if call[1] in ("Path", "open")] == []
