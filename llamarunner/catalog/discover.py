"""Finds GGUF files and the weights of CTranslate2 models: in folders, and in the stores of other programs.

Those are only read. Nothing here opens a model. What cannot be read is passed over, for one bad folder must not hide
the others.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamarunner.catalog import starved
from llamarunner.catalog.entry import Source
from llamarunner.catalog.places import Places
from llamarunner.config import CatalogSettings

WEIGHTS = "model.bin"  # of a CTranslate2 model, whose folder is the model
_SUFFIX = ".gguf"
_DEMO_PREFIX = "demo-"
_MANIFEST_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_OLLAMA_LAYER = "application/vnd.ollama.image."
_LLAMA_CPP_MANIFEST = re.compile(r"manifest=([^=]+)=([^=]+)=[^=]*\.json")
_LLAMA_CPP_NAME = re.compile(r"([^_]+)_(.+?-gguf)_(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be a model, and how its store calls it."""

    path: Path
    source: Source
    parts: tuple[str, ...] = ()  # publisher, repository and file, as far as the store has them
    title: str | None = None  # Ollama's name:tag
    mmproj: Path | None = None  # where the store says so itself
    error: str | None = None  # what the store says against it

    @property
    def scope(self) -> tuple[str, ...]:
        """Return what files must share to belong together."""
        return (self.source, str(self.path.parent), *self.parts[:-1])


def discover(settings: CatalogSettings, places: Places) -> Iterator[Found]:
    """Yield what all places hold; a file that is reached in several ways comes several times."""
    readers = {Source.OLLAMA: _in_ollama, Source.HUGGINGFACE: _in_huggingface, Source.LLAMA_CPP: _in_llama_cpp}
    for source, folder in places.stores(settings):
        if reader := readers.get(source):
            yield from reader(folder)
        else:
            yield from _in_folder(folder, source)


def walk(root: Path) -> Iterator[Path]:
    """Yield the GGUF files and the weights below a folder; links are followed, each folder is entered once."""
    entered: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (identity := (status.st_dev, status.st_ino)) in entered:
                continue
            entered.add(identity)
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            starved.check(error)
            continue
        waiting.extend(folder / entry.name for entry in entries if _is_folder(entry))
        files = (entry for entry in entries if _may_be_model(entry.name) and not _is_folder(entry))
        yield from (folder / entry.name for entry in files)


def _matches(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:
        starved.check(error)
        return []


def _may_be_model(name: str) -> bool:
    return name == WEIGHTS or name.lower().endswith(_SUFFIX)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _in_folder(root: Path, source: Source) -> Iterator[Found]:
    for path in walk(root):
        name = path.parent.name if path.name == WEIGHTS else path.name
        own = source is Source.DEMO and not name.startswith(_DEMO_PREFIX)  # put beside ours by the person
        yield Found(path, Source.FOLDER if own else source, path.relative_to(root).parts)


def _in_huggingface(hub: Path) -> Iterator[Found]:
    for repository in _matches(hub, "models--*"):
        names = tuple(repository.name.split("--")[1:])
        seen: set[Path] = set()
        for snapshot in _snapshots(repository):
            for path in walk(snapshot):
                inner = path.relative_to(snapshot)
                if inner not in seen:
                    seen.add(inner)
                    yield Found(path, Source.HUGGINGFACE, (*names, *inner.parts))


def _snapshots(repository: Path) -> list[Path]:
    """Return the snapshots of a repository, the one that `main` means first, then the newest."""
    main = _read_text(repository / "refs" / "main")
    dated = []
    for snapshot in _matches(repository, "snapshots/*"):
        try:
            dated.append((snapshot.name != main.strip(), -snapshot.stat().st_mtime, snapshot))
        except OSError:
            continue
    return [snapshot for _, _, snapshot in sorted(dated)]


def _in_llama_cpp(root: Path) -> Iterator[Found]:
    """Read llama.cpp's cache, whose file names are `owner_repository_file`."""
    manifests = (_LLAMA_CPP_MANIFEST.fullmatch(path.name) for path in _matches(root, "manifest=*.json"))
    repositories = [(match[1], match[2]) for match in manifests if match]
    for path in walk(root):
        yield Found(path, Source.LLAMA_CPP, _llama_cpp_parts(path.name, repositories))


def _llama_cpp_parts(name: str, repositories: list[tuple[str, str]]) -> tuple[str, ...]:
    for owner, repository in sorted(repositories, key=lambda names: -len("_".join(names))):
        if name.startswith(prefix := f"{owner}_{repository}_"):
            return owner, repository, name.removeprefix(prefix)
    guessed = _LLAMA_CPP_NAME.fullmatch(name)
    return tuple(guessed.groups()) if guessed else (name,)


def _in_ollama(root: Path) -> Iterator[Found]:
    for manifest in _matches(root, "manifests/*/*/*/*"):
        if not manifest.name.startswith("."):
            yield from _read_manifest(root, manifest)


def _read_manifest(root: Path, manifest: Path) -> Iterator[Found]:
    title = _ollama_title(*manifest.parts[-4:])
    try:
        layers = _layers(json.loads(_read_text(manifest)))
    except (ValueError, RecursionError):
        yield Found(manifest, Source.OLLAMA, title=title, error="damaged: Ollama's manifest cannot be read")
        return
    blobs = {kind: _blob(root, digest) for kind, digest in layers.items()}
    if "adapter" in blobs:
        yield Found(manifest, Source.OLLAMA, title=title, error="it needs an adapter that only Ollama applies")
    elif model := blobs.get("model"):
        yield Found(model, Source.OLLAMA, title=title, mmproj=blobs.get("projector"))


def _layers(manifest: Any) -> dict[str, str]:
    """Return the first digest of each kind of layer; raise ValueError where the manifest is none."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("layers"), list):
        raise ValueError("no list of layers")
    layers: dict[str, str] = {}
    for layer in filter(lambda layer: isinstance(layer, dict), manifest["layers"]):
        kind, digest = layer.get("mediaType"), layer.get("digest")
        if isinstance(kind, str) and isinstance(digest, str) and kind.startswith(_OLLAMA_LAYER):
            layers.setdefault(kind.removeprefix(_OLLAMA_LAYER), digest)
    return layers


def _blob(root: Path, digest: str) -> Path | None:
    match = _DIGEST.fullmatch(digest)  # nothing else may become a path
    return root / "blobs" / f"sha256-{match[1]}" if match else None


def _ollama_title(host: str, namespace: str, name: str, tag: str) -> str:
    """Return a model's name as Ollama prints it, with the tag."""
    known = "" if host == "registry.ollama.ai" else f"{host}/"
    owner = "" if not known and namespace == "library" else f"{namespace}/"
    return f"{known}{owner}{name}:{tag}"


def _read_text(path: Path) -> str:
    """Return the text of a small regular file, or nothing."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_MANIFEST_BYTES).decode(errors="replace")
    except OSError:
        return ""
