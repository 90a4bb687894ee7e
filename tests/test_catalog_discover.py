"""Files are found in folders and in other programs' stores, whatever state these are in."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from llamarunner.catalog.discover import Found, discover, walk
from llamarunner.catalog.entry import Source
from llamarunner.catalog.places import Places
from llamarunner.config import CatalogSettings, Discover


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def machine(root: Path, **environ: str) -> Places:
    return Places(home=root / "home", environ=environ, platform="linux", root=root / "system")


def find(places: Places, **settings: Any) -> list[Found]:
    return list(discover(CatalogSettings(**settings), places))


def ollama_model(store: Path, name: str, content: bytes, **layers: str) -> Path:
    """Put a model into an Ollama store; `layers` are further layers, kind to digest."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    kinds = {"model": digest, "template": "sha256:" + "0" * 64, **layers}
    listed = [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": value} for kind, value in kinds.items()]
    touch(store / "manifests" / name, json.dumps({"schemaVersion": 2, "layers": listed}).encode())
    return touch(store / "blobs" / digest.replace(":", "-"), content)


def test_folders_are_searched_in_depth_and_hidden_files_left_alone(tmp_path: Path) -> None:
    for name in ("a.gguf", "deep/er/B.GGUF", "notes.txt", "._a.gguf", ".cache/c.gguf"):
        touch(tmp_path / name)
    assert {path.relative_to(tmp_path).as_posix() for path in walk(tmp_path)} == {"a.gguf", "deep/er/B.GGUF"}


def test_loops_of_links_and_dangling_links_do_not_stop_the_search(tmp_path: Path) -> None:
    touch(tmp_path / "inner" / "a.gguf")
    (tmp_path / "inner" / "back").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone.gguf").symlink_to(tmp_path / "nowhere")
    assert sorted(path.name for path in walk(tmp_path)) == ["a.gguf", "gone.gguf"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "a.gguf")
    closed = touch(tmp_path / "closed" / "b.gguf").parent
    closed.chmod(0)
    try:
        assert [path.name for path in walk(tmp_path)] == ["a.gguf"]
    finally:
        closed.chmod(0o700)


def test_what_is_no_folder_holds_nothing(tmp_path: Path) -> None:
    file = touch(tmp_path / "file")
    assert find(machine(tmp_path), folders=(file, tmp_path / "missing")) == []


def test_ollamas_store_is_read_through_its_manifests(tmp_path: Path) -> None:
    store = tmp_path / "home/.ollama/models"
    first = ollama_model(store, "registry.ollama.ai/library/llama3.2/3b", b"one", projector="sha256:" + "a" * 64)
    second = ollama_model(store, "hf.co/owner/Repo-GGUF/Q4_K_M", b"two")
    system = ollama_model(
        tmp_path / "system/usr/share/ollama/.ollama/models", "registry.ollama.ai/me/mine/latest", b"3"
    )
    found = {one.title: one for one in find(machine(tmp_path))}
    assert {title: one.path for title, one in found.items()} == {
        "llama3.2:3b": first,
        "hf.co/owner/Repo-GGUF:Q4_K_M": second,
        "me/mine:latest": system,
    }
    assert found["llama3.2:3b"].mmproj == store / "blobs" / ("sha256-" + "a" * 64)


def test_ollama_models_variable_moves_the_store(tmp_path: Path) -> None:
    ollama_model(tmp_path / "elsewhere", "registry.ollama.ai/library/a/latest", b"a")
    places = machine(tmp_path, OLLAMA_MODELS=str(tmp_path / "elsewhere"))
    assert [one.title for one in find(places)] == ["a:latest"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"layers": 5}', b"[" * 100_000])
def test_a_damaged_manifest_is_listed_with_the_reason(tmp_path: Path, content: bytes) -> None:
    touch(tmp_path / "home/.ollama/models/manifests/registry.ollama.ai/library/bad/latest", content)
    (bad,) = find(machine(tmp_path))
    assert (bad.title, bad.error) == ("bad:latest", "damaged: Ollama's manifest cannot be read")


def test_a_digest_never_leads_out_of_the_store(tmp_path: Path) -> None:
    ollama_model(tmp_path / "home/.ollama/models", "registry.ollama.ai/library/x/latest", b"x", model="sha256:../../x")
    assert find(machine(tmp_path)) == []


def test_a_model_with_an_ollama_adapter_is_not_served_without_it(tmp_path: Path) -> None:
    store = tmp_path / "home/.ollama/models"
    ollama_model(store, "registry.ollama.ai/me/tuned/latest", b"x", adapter="sha256:" + "b" * 64)
    (tuned,) = find(machine(tmp_path))
    assert tuned.error == "it needs an adapter that only Ollama applies"


def test_lm_studio_has_publisher_and_repository(tmp_path: Path) -> None:
    touch(tmp_path / "home/.lmstudio/models/bartowski/Qwen-GGUF/Qwen-Q8_0.gguf")
    touch(tmp_path / "home/.cache/lm-studio/models/old/R/o.gguf")
    assert [one.parts for one in find(machine(tmp_path))] == [
        ("bartowski", "Qwen-GGUF", "Qwen-Q8_0.gguf"),
        ("old", "R", "o.gguf"),
    ]


def test_lm_studios_pointer_moves_its_folder(tmp_path: Path) -> None:
    touch(tmp_path / "moved/models/p/r/f.gguf")
    touch(tmp_path / "home/.lmstudio-home-pointer", f"{tmp_path / 'moved'}\n".encode())
    assert [(one.source, one.parts) for one in find(machine(tmp_path))] == [(Source.LMSTUDIO, ("p", "r", "f.gguf"))]


def hub_file(hub: Path, repository: str, revision: str, file: str, content: bytes) -> Path:
    """Put a file into a Hugging Face cache: a blob, and a link to it in a snapshot."""
    blob = touch(hub / repository / "blobs" / hashlib.sha256(content).hexdigest(), content)
    link = hub / repository / "snapshots" / revision / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)
    return link


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        (None, "home/.cache/huggingface/hub"),
        ("HF_HOME", "home/.cache/hf/hub"),
        ("HF_HUB_CACHE", "home/.cache/hf"),
        ("XDG_CACHE_HOME", "home/.cache/hf/huggingface/hub"),
    ],
)
def test_the_hugging_face_cache_is_read(tmp_path: Path, variable: str | None, folder: str) -> None:
    link = hub_file(tmp_path / folder, "models--ggml-org--gemma-GGUF", "abc", "sub/gemma-Q8_0.gguf", b"g")
    environ = {variable: str(tmp_path / "home/.cache/hf")} if variable else {}
    (one,) = find(machine(tmp_path, **environ))
    assert (one.path, one.parts) == (link, ("ggml-org", "gemma-GGUF", "sub", "gemma-Q8_0.gguf"))


def test_of_two_revisions_the_one_called_main_counts(tmp_path: Path) -> None:
    hub = tmp_path / "home/.cache/huggingface/hub"
    for revision in ("aaa", "bbb", "ccc"):
        hub_file(hub, "models--o--r", revision, "m.gguf", revision.encode())
    hub_file(hub, "models--o--r", "aaa", "only-here.gguf", b"old")
    touch(hub / "models--o--r/refs/main", b"bbb\n")
    assert sorted(
        one.path.relative_to(hub / "models--o--r/snapshots").as_posix() for one in find(machine(tmp_path))
    ) == [
        "aaa/only-here.gguf",
        "bbb/m.gguf",
    ]


def test_llama_cpps_cache_is_read_with_its_manifests_or_without(tmp_path: Path) -> None:
    cache = tmp_path / "home/.cache/llama.cpp"
    touch(cache / "manifest=me=My_Repo=latest.json")
    for name in ("me_My_Repo_my-model.gguf", "ggml-org_gemma-3-4b-it-GGUF_gemma-3-4b-it-Q4_K_M.gguf", "plain.gguf"):
        touch(cache / name)
    assert {one.parts for one in find(machine(tmp_path))} == {
        ("me", "My_Repo", "my-model.gguf"),
        ("ggml-org", "gemma-3-4b-it-GGUF", "gemma-3-4b-it-Q4_K_M.gguf"),
        ("plain.gguf",),
    }


@pytest.mark.parametrize(
    ("platform", "environ", "folder"),
    [
        ("linux", {}, "/h/.cache/llama.cpp"),
        ("linux", {"XDG_CACHE_HOME": "~/c"}, "/h/c/llama.cpp"),
        ("darwin", {}, "/h/Library/Caches/llama.cpp"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/llama.cpp"),
        ("win32", {}, "/h/AppData/Local/llama.cpp"),
        ("linux", {"LLAMA_CACHE": "/own"}, "/own"),
    ],
)
def test_llama_cpps_cache_lies_where_each_system_has_it(platform: str, environ: dict[str, str], folder: str) -> None:
    assert Places(Path("/h"), environ, platform=platform).llama_cpp() == (Path(folder),)


def test_each_store_can_be_switched_off(tmp_path: Path) -> None:
    ollama_model(tmp_path / "home/.ollama/models", "registry.ollama.ai/library/a/latest", b"a")
    touch(tmp_path / "home/.lmstudio/models/p/r/l.gguf")
    hub_file(tmp_path / "home/.cache/huggingface/hub", "models--o--r", "x", "h.gguf", b"h")
    touch(tmp_path / "home/.cache/llama.cpp/c.gguf")
    everything = {Source.OLLAMA, Source.LMSTUDIO, Source.HUGGINGFACE, Source.LLAMA_CPP}
    assert {one.source for one in find(machine(tmp_path))} == everything
    for source in everything:
        switches = Discover.model_validate({source.value: False})
        assert {one.source for one in find(machine(tmp_path), discover=switches)} == everything - {source}


def test_beside_the_demo_models_a_persons_own_are_their_own(tmp_path: Path) -> None:
    touch(tmp_path / "models/demo-chat.gguf")
    touch(tmp_path / "models/mine.gguf")
    places = Places(tmp_path / "home", {}, demo=tmp_path / "models", root=tmp_path)
    assert {one.path.name: one.source for one in find(places)} == {
        "demo-chat.gguf": Source.DEMO,
        "mine.gguf": Source.FOLDER,
    }
