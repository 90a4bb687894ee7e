"""Speech models: which folders are some, and by which names they are found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llamarunner.catalog import Capability, Catalog, Places, Source
from llamarunner.catalog.speech import how_to_get, size_of
from llamarunner.config import CatalogSettings, Discover, Settings, bundled
from llamarunner.errors import ModelNotFound

MODEL = bundled("models") / "demo-whisper"
ONLY_HUB = Discover(ollama=False, lmstudio=False, llama_cpp=False)


def put(folder: Path) -> Path:
    """A speech model in a folder."""
    return Path(shutil.copytree(MODEL, folder))


def in_hub(home: Path, repository: str) -> Path:
    """A speech model as the Hugging Face cache has it: links to blobs."""
    place = home / ".cache/huggingface/hub" / f"models--{repository.replace('/', '--')}"
    blobs = put(place / "blobs")
    snapshot = place / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    return snapshot


def scanned(home: Path, *folders: Path) -> Catalog:
    settings = Settings(catalog=CatalogSettings(folders=folders, discover=ONLY_HUB))
    catalog = Catalog(settings, Places(home, {}))
    catalog.scan()
    return catalog


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    put(tmp_path / "models" / "My Whisper")
    (entry,) = scanned(tmp_path, tmp_path / "models").entries
    assert (entry.id, entry.format, entry.source, entry.error) == ("my-whisper", "CTranslate2", Source.FOLDER, None)
    assert entry.capabilities == {Capability.TRANSCRIPTION}
    assert entry.size == (MODEL / "model.bin").stat().st_size
    assert entry.memory_needed(8192) > entry.size + (100 << 20)


def test_the_folder_itself_may_be_named_in_the_settings(tmp_path: Path) -> None:
    put(tmp_path / "faster-whisper-small")
    assert scanned(tmp_path, tmp_path / "faster-whisper-small").find("small").id == "whisper-small"


@pytest.mark.parametrize(
    ("repository", "model_id", "names"),
    [
        (
            "Systran/faster-whisper-base",
            "whisper-base",
            ["base", "openai/whisper-base", "Whisper-Base"],
        ),
        ("Systran/faster-whisper-base", "whisper-base", ["Systran/faster-whisper-base", "faster-whisper-base"]),
        ("Systran/faster-whisper-tiny.en", "whisper-tiny.en", ["tiny.en", "whisper-tiny.en"]),
        ("Systran/faster-whisper-large-v3", "whisper-large-v3", ["large", "whisper-large", "large-v3"]),
        ("Systran/faster-whisper-large-v2", "whisper-large-v2", ["large", "large-v2"]),
        ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", "whisper-large-v3-turbo", ["turbo", "whisper-turbo", "large"]),
        ("deepdml/faster-whisper-large-v3-turbo-ct2", "whisper-large-v3-turbo", ["openai/whisper-large-v3-turbo"]),
        (
            "Systran/faster-distil-whisper-large-v3",
            "whisper-distil-large-v3",
            ["distil-large-v3", "distil-whisper-large-v3", "distil-whisper/distil-large-v3"],
        ),
        ("distil-whisper/distil-large-v3.5-ct2", "whisper-distil-large-v3.5", ["distil-large-v3.5"]),
        ("somebody/hears-well", "hears-well", ["somebody/hears-well", "hears-well"]),
    ],
)
def test_names_of_what_is_in_the_hub_cache(tmp_path: Path, repository: str, model_id: str, names: list[str]) -> None:
    in_hub(tmp_path, repository)
    catalog = scanned(tmp_path)
    (entry,) = catalog.entries
    assert (entry.id, entry.source, entry.error) == (model_id, Source.HUGGINGFACE, None)
    assert [catalog.find(name).id for name in names] == [model_id] * len(names)


def test_large_is_the_newest_that_is_there(tmp_path: Path) -> None:
    for version in ("large", "large-v2", "large-v3"):
        in_hub(tmp_path, f"Systran/faster-whisper-{version}")
    in_hub(tmp_path, "mobiuslabsgmbh/faster-whisper-large-v3-turbo")
    catalog = scanned(tmp_path)
    assert catalog.find("whisper-large").id == "whisper-large-v3"
    assert catalog.find("large-v1").path.parent.parts[-3] == "models--Systran--faster-whisper-large"


def test_small_models_do_not_answer_to_other_sizes(tmp_path: Path) -> None:
    in_hub(tmp_path, "Systran/faster-whisper-base.en")
    catalog = scanned(tmp_path)
    for name in ("base", "whisper-base", "tiny", "large", "turbo"):
        with pytest.raises(ModelNotFound):
            catalog.find(name)


def test_two_of_a_size_are_told_apart(tmp_path: Path) -> None:
    in_hub(tmp_path, "Systran/faster-whisper-base")
    in_hub(tmp_path, "someone/faster-whisper-base")
    catalog = scanned(tmp_path)
    assert [entry.id for entry in catalog.entries] == ["someone/whisper-base", "systran/whisper-base"]
    assert catalog.find("systran/faster-whisper-base").id == "systran/whisper-base"


def test_other_models_of_the_format_are_none(tmp_path: Path) -> None:
    translator = put(tmp_path / "opus-mt")
    (translator / "config.json").write_text(json.dumps({"add_source_bos": False, "unk_token": "<unk>"}))
    for name, content in (("broken", "{"), ("list", "[1]"), ("deep", "[" * 100_000)):
        (put(tmp_path / name) / "config.json").write_text(content)
    (put(tmp_path / "without") / "config.json").unlink()
    assert scanned(tmp_path, tmp_path).entries == ()


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("vocabulary.json", None, "vocabulary.json is missing"),
        ("model.bin", b"", "the file is empty"),
        ("model.bin", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the model itself"),
    ],
)
def test_what_is_incomplete_is_listed_with_its_fault(
    tmp_path: Path, name: str, content: bytes | None, error: str
) -> None:
    file = put(tmp_path / "whisper-base") / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    catalog = scanned(tmp_path, tmp_path)
    entry = catalog.find("whisper-base")
    assert (entry.error, entry.capabilities) == (error, frozenset())


def test_a_download_without_its_weights_is_not_there(tmp_path: Path) -> None:
    (in_hub(tmp_path, "Systran/faster-whisper-base") / "model.bin").unlink()
    assert scanned(tmp_path).entries == ()


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("whisper-base", "Systran/faster-whisper-base"),
        ("openai/whisper-small.en", "Systran/faster-whisper-small.en"),
        ("whisper-large", "Systran/faster-whisper-large-v3"),
        ("turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
        ("whisper-large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo"),
        ("distil-large-v3", "Systran/faster-distil-whisper-large-v3"),
        ("distil-whisper/distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2"),
        ("whisper-1", None),
        ("llama", None),
        ("base; rm -rf /", None),
    ],
)
def test_how_to_get_one(name: str, repository: str | None) -> None:
    assert how_to_get(name) == repository


@pytest.mark.parametrize("name", ["demo-whisper", "whisper", "basement", "large-v9", ""])
def test_what_names_no_size(name: str) -> None:
    assert size_of(name) is None
