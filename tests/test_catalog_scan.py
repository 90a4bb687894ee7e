"""From files to entries: shards, copies, projectors, and files that are no models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamarunner.catalog import Capability, Catalog, ModelEntry, Source
from llamarunner.config import Settings
from tests.programs.write_gguf import write_embedding_model, write_gguf, write_model, write_projector
from tests.test_catalog_discover import machine, ollama_model, touch


def scan(root: Path, *folders: Path, **settings: Any) -> dict[str, ModelEntry]:
    chosen = Settings.model_validate({"catalog": {"folders": folders or (root / "m",)}, **settings})
    return {entry.id: entry for entry in Catalog(chosen, machine(root)).scan()}


def test_an_entry_says_what_the_header_says(tmp_path: Path) -> None:
    metadata = {"general.file_type": 15, "tokenizer.chat_template": "{{ messages }}{{ tools }}"}
    path = write_model(tmp_path / "m/acme/Acme-GGUF/Acme-7B-Q4_K_M.gguf", metadata)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    entry = scan(tmp_path)["acme-7b"]
    assert (entry.path, entry.files, entry.size) == (path, (path,), path.stat().st_size)
    assert (entry.architecture, entry.parameters, entry.quantization) == ("llama", 128, "Q4_K_M")
    assert (entry.context_length, entry.embedding_length) == (4096, 32)
    assert entry.capabilities == {Capability.CHAT, Capability.COMPLETION, Capability.TOOLS}
    assert (entry.publisher, entry.created, entry.source) == ("acme", 1_700_000_000, Source.FOLDER)
    assert (entry.error, entry.mmproj) == (None, None)


def test_an_embedding_model_embeds(tmp_path: Path) -> None:
    write_embedding_model(tmp_path / "m/tiny.gguf")
    assert scan(tmp_path)["tiny"].capabilities == {Capability.EMBEDDING}


def shards(folder: Path, count: int, stem: str = "big-Q8_0") -> list[Path]:
    """Write a model in shards, of which only the first says what it is."""
    paths = [folder / f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        split = {"split.no": number, "split.count": count}
        tensors = {f"blk.{number}.w": np.ones((2, 32), dtype=np.float16)}
        if number == 0:
            write_model(path, split, tensors=tensors)
        else:
            write_gguf(path, None, split, tensors)
    return paths


def test_shards_are_one_model(tmp_path: Path) -> None:
    paths = shards(tmp_path / "m", 3)
    entry = scan(tmp_path)["big"]
    assert entry.files == tuple(paths)
    assert (entry.path, entry.parameters, entry.error) == (paths[0], 192, None)
    assert entry.size == sum(path.stat().st_size for path in paths)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    paths = shards(tmp_path / "m", 4)
    paths[0].unlink()
    paths[2].unlink()
    entry = scan(tmp_path)["big"]
    assert entry.error == ("2 of 4 files are missing: big-Q8_0-00001-of-00004.gguf, big-Q8_0-00003-of-00004.gguf")
    assert entry.capabilities == frozenset()


def test_many_missing_shards_are_counted(tmp_path: Path) -> None:
    touch(tmp_path / "m/huge-00007-of-99999.gguf", b"GGUF")
    error = scan(tmp_path)["huge"].error
    assert error is not None
    assert error.startswith("99998 of 99999 files are missing: huge-00001-of-99999.gguf, ")
    assert error.endswith(" and 99993 more")


def test_a_truncated_shard_is_found(tmp_path: Path) -> None:
    last = shards(tmp_path / "m", 2)[1]
    os.truncate(last, last.stat().st_size - 1)
    error = scan(tmp_path)["big"].error
    assert error is not None
    assert error.startswith("file 2 of 2: truncated: ")


def test_a_shard_that_was_renamed_is_not_taken_for_a_model(tmp_path: Path) -> None:
    first = shards(tmp_path / "m", 2)[0]
    first.rename(tmp_path / "m/renamed.gguf")
    assert scan(tmp_path)["renamed"].error == "one of 2 files of a model, without the others"


BROKEN = {
    b"": "the file is empty",
    b"<!DOCTYPE html><title>404</title>": "not a GGUF file",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "a Git LFS pointer, not the model itself",
    b"GGUF\x03\0\0\0\0\0": "truncated: the file ends inside its header",
}


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_listed_with_the_reason_beside_the_others(tmp_path: Path, content: bytes) -> None:
    write_model(tmp_path / "m/good.gguf")
    touch(tmp_path / "m/bad-Q4_K_M.gguf", content)
    entries = scan(tmp_path)
    assert entries["good"].error is None
    assert entries["bad"].error == BROKEN[content]
    assert (entries["bad"].capabilities, entries["bad"].quantization) == (frozenset(), "Q4_K_M")


def test_a_file_that_is_still_being_copied_is_truncated_then_whole(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m/a.gguf")
    content = path.read_bytes()
    catalog = Catalog(Settings.model_validate({"catalog": {"folders": [tmp_path / "m"]}}), machine(tmp_path))
    path.write_bytes(content[:-100])
    (entry,) = catalog.scan()
    assert entry.error == f"truncated: {len(content) - 100} of {len(content)} bytes are there"
    path.write_bytes(content)
    (entry,) = catalog.scan()
    assert entry.error is None


def test_reasons_name_no_place_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/gone.gguf").symlink_to(tmp_path / "nowhere.gguf")
    (tmp_path / "m/loop.gguf").symlink_to(tmp_path / "m/loop.gguf")
    os.mkfifo(tmp_path / "m/pipe.gguf")
    errors = {name: entry.error for name, entry in scan(tmp_path).items()}
    assert (errors["gone"], errors["pipe"]) == ("the file is missing", "not a regular file")
    assert "the file cannot be read" in str(errors["loop"])
    assert not [error for error in errors.values() if "/" in str(error)]


def test_an_image_model_is_foreign(tmp_path: Path) -> None:
    write_model(tmp_path / "m/flux.gguf", {"tokenizer.ggml.model": None}, architecture="flux")
    assert "'flux' is not a language model" in str(scan(tmp_path)["flux"].error)


def test_adapters_vocabularies_and_matrices_are_not_listed(tmp_path: Path) -> None:
    write_model(tmp_path / "m/lora.gguf", {"general.type": "adapter"})
    write_model(tmp_path / "m/imatrix.gguf", {"general.type": "imatrix"})
    write_model(tmp_path / "m/vocab.gguf", tensors={})
    assert scan(tmp_path) == {}


def test_a_file_reached_in_several_ways_is_one_entry(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m/a.gguf")
    (tmp_path / "m/z-link.gguf").symlink_to(path)
    os.link(path, tmp_path / "m/y-hard.gguf")
    (tmp_path / "other").symlink_to(tmp_path / "m")
    entries = scan(tmp_path, tmp_path / "m", tmp_path / "other")
    assert set(entries) == {"a"}
    assert {"z-link", "y-hard"} <= entries["a"].names


def test_two_tags_of_one_ollama_blob_are_one_entry(tmp_path: Path) -> None:
    content = write_model(tmp_path / "a.gguf", {"general.file_type": 15}).read_bytes()
    for tag in ("latest", "3b"):
        blob = ollama_model(tmp_path / "home/.ollama/models", f"registry.ollama.ai/library/llama3.2/{tag}", content)
    entries = scan(tmp_path)
    assert set(entries) == {"llama3.2:3b"}
    assert "llama3.2:latest" in entries["llama3.2:3b"].names
    assert (entries["llama3.2:3b"].path, entries["llama3.2:3b"].quantization) == (blob, "Q4_K_M")


def test_what_a_manifest_adds_makes_another_model_of_one_blob(tmp_path: Path) -> None:
    content = write_model(tmp_path / "m/a.gguf").read_bytes()
    store = tmp_path / "home/.ollama/models"
    touch(store / f"blobs/sha256-{'1' * 64}", b"You are Mario.")
    ollama_model(store, "registry.ollama.ai/library/base/latest", content)
    ollama_model(store, "registry.ollama.ai/library/mario/latest", content, system="sha256:" + "1" * 64)
    entries = scan(tmp_path)
    assert {name: entry.preset.system for name, entry in entries.items()} == {
        "a": "",
        "base": "",
        "mario": "You are Mario.",
    }
    assert entries["mario"].digest != entries["base"].digest


def test_each_name_in_the_library_is_a_model_and_keeps_its_id(tmp_path: Path) -> None:
    content = write_model(tmp_path / "m/tiny.gguf").read_bytes()
    for tag in ("latest", "two"):
        blob = ollama_model(tmp_path / "library", f"registry.ollama.ai/library/Tiny/{tag}", content)
    (tmp_path / "m/tiny.gguf").unlink()
    os.link(blob, tmp_path / "m/tiny.gguf")
    entries = scan(tmp_path, catalog={"folders": [tmp_path / "m"], "library": tmp_path / "library"})
    library = {name: entry.title for name, entry in entries.items() if entry.source is Source.LIBRARY}
    assert library == {"tiny": "Tiny:latest", "tiny:two": "Tiny:two"}
    (own,) = (entry for entry in entries.values() if entry.source is Source.FOLDER)
    assert (own.title, own.digest) == (None, None)
    assert own.id.startswith("tiny-")
    assert len({entry.path.stat().st_ino for entry in entries.values()}) == 1


def test_an_ollama_model_without_its_blob_is_listed(tmp_path: Path) -> None:
    ollama_model(tmp_path / "home/.ollama/models", "registry.ollama.ai/library/lost/latest", b"x").unlink()
    assert scan(tmp_path)["lost"].error == "the file is missing"


def test_an_ollama_projector_gives_vision(tmp_path: Path) -> None:
    store = tmp_path / "home/.ollama/models"
    eyes = ollama_model(store, "registry.ollama.ai/x/eyes/latest", write_projector(tmp_path / "p.gguf").read_bytes())
    content = write_model(tmp_path / "a.gguf").read_bytes()
    ollama_model(store, "registry.ollama.ai/library/llava/latest", content, projector=eyes.name.replace("-", ":"))
    entries = scan(tmp_path)
    assert set(entries) == {"llava"}
    assert entries["llava"].mmproj == eyes
    assert Capability.VISION in entries["llava"].capabilities


def test_ids_do_not_depend_on_the_order_of_the_folders(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for number, folder in enumerate(folders):
        write_model(folder / "same-Q8_0.gguf", {"general.name": f"copy {number}"})
    one, other = (scan(tmp_path, *order) for order in (folders, folders[::-1]))
    assert len(one) == 3
    assert {name: entry.path for name, entry in one.items()} == {name: entry.path for name, entry in other.items()}


def eyes_of(root: Path, *models: str, projectors: tuple[str, ...]) -> dict[str, str | None]:
    """Tell which projector each model of a folder is paired with."""
    for number, name in enumerate(models):
        write_model(root / "m" / name, {"general.name": str(number)})
    for number, name in enumerate(projectors):
        write_projector(root / "m" / name, {"general.file_type": 1 if "f16" in name else 0, "n": number})
    return {name: entry.mmproj.name if entry.mmproj else None for name, entry in scan(root).items()}


def test_the_one_model_of_a_folder_gets_the_projector(tmp_path: Path) -> None:
    assert eyes_of(tmp_path, "a-Q8_0.gguf", projectors=("mmproj-other.gguf",)) == {"a": "mmproj-other.gguf"}


def test_all_quantisations_of_one_model_get_it_and_f16_is_preferred(tmp_path: Path) -> None:
    paired = eyes_of(tmp_path, "a-Q4_K_M.gguf", "a-Q8_0.gguf", projectors=("mmproj-f32.gguf", "mmproj-f16.gguf"))
    assert paired == {"a-q4_k_m": "mmproj-f16.gguf", "a-q8_0": "mmproj-f16.gguf"}


def test_among_several_models_the_name_decides(tmp_path: Path) -> None:
    paired = eyes_of(
        tmp_path,
        "gemma-3-4b-it-Q4_K_M.gguf",
        "gemma-3-12b-it-Q4_K_M.gguf",
        "qwen3-8b-Q8_0.gguf",
        projectors=("mmproj-gemma-3-4b-it-f16.gguf", "gemma-3-12b-it.mmproj-f16.gguf", "mmproj-f16.gguf"),
    )
    assert paired == {
        "gemma-3-4b-it": "mmproj-gemma-3-4b-it-f16.gguf",
        "gemma-3-12b-it": "gemma-3-12b-it.mmproj-f16.gguf",
        "qwen3-8b": None,
    }


def test_an_embedding_model_gets_no_projector_and_is_no_neighbour(tmp_path: Path) -> None:
    write_embedding_model(tmp_path / "m/embed.gguf")
    paired = eyes_of(tmp_path, "a-Q8_0.gguf", projectors=("mmproj-f16.gguf",))
    assert paired == {"a": "mmproj-f16.gguf", "embed": None}


def test_a_projector_of_another_folder_is_not_taken(tmp_path: Path) -> None:
    write_projector(tmp_path / "m/other/mmproj-f16.gguf")
    assert eyes_of(tmp_path, "a.gguf", projectors=()) == {"a": None}


def test_a_projector_from_the_settings_counts(tmp_path: Path) -> None:
    write_model(tmp_path / "m/a.gguf")
    eyes = write_projector(tmp_path / "elsewhere/eyes.gguf")
    entry = scan(tmp_path, models={"a": {"mmproj": str(eyes)}})["a"]
    assert entry.mmproj == eyes
    assert Capability.VISION in entry.capabilities
    assert entry.memory_needed(1) > eyes.stat().st_size + entry.size


def test_headers_are_read_once_while_files_stay_as_they_are(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m/a.gguf")
    catalog = Catalog(Settings.model_validate({"catalog": {"folders": [tmp_path / "m"]}}), machine(tmp_path))
    catalog.scan()
    (before,) = catalog.scan()
    (again,) = catalog.scan()
    assert again.header is before.header
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (after,) = catalog.scan()
    assert after.header is not before.header
    shutil.rmtree(tmp_path / "m")
    assert catalog.scan() == ()
