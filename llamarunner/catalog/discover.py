"""Finds GGUF files and the weights of CTranslate2 models: in folders, and in the stores of other programs.

Those are only read. Nothing here opens a model. What cannot be read is passed over, for one bad folder must not hide
the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llamarunner.catalog import starved
from llamarunner.catalog.entry import NO_PRESET, Preset, Source
from llamarunner.catalog.manifests import Layout, Manifest, parse_manifest, read_preset, read_small
from llamarunner.catalog.places import Places
from llamarunner.config import CatalogSettings

WEIGHTS = "model.bin"  # of a CTranslate2 model, whose folder is the model
_SUFFIX = ".gguf"
_DEMO_PREFIX = "demo-"
_DAMAGED = {
    Source.OLLAMA: "damaged: Ollama's manifest cannot be read",
    Source.LIBRARY: "damaged: the manifest in LlamaRunner's library cannot be read",
}
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
    manifest: Path | None = None
    digest: str | None = None  # of the manifest
    preset: Preset = NO_PRESET
    adapters: tuple[Path, ...] = ()

    @property
    def scope(self) -> tuple[str, ...]:
        """Return what files must share to belong together."""
        return (self.source, str(self.path.parent), *self.parts[:-1])


def discover(settings: CatalogSettings, places: Places) -> Iterator[Found]:
    """Yield what all places hold; a file that is reached in several ways comes several times."""
    readers: Mapping[Source, Callable[[Path], Iterator[Found]]] = {
        Source.LIBRARY: _in_library,
        Source.OLLAMA: _in_ollama,
        Source.HUGGINGFACE: _in_huggingface,
        Source.LLAMA_CPP: _in_llama_cpp,
    }
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


def _in_ollama(root: Path, source: Source = Source.OLLAMA) -> Iterator[Found]:
    layout = Layout(root)
    for path in layout.manifests():
        yield from _read_manifest(layout, path, source)


def _in_library(root: Path) -> Iterator[Found]:
    yield from _in_ollama(root, Source.LIBRARY)


def _read_manifest(layout: Layout, path: Path, source: Source) -> Iterator[Found]:
    title = _ollama_title(*path.parts[-4:])
    try:
        manifest = parse_manifest(read_small(path))
    except ValueError:
        yield Found(path, source, title=title, error=_DAMAGED[source], manifest=path)
        return
    models, projectors, adapters = (_blobs(layout, manifest, kind) for kind in ("model", "projector", "adapter"))
    alien = adapters and source is Source.OLLAMA  # in formats of their own, for all we know
    common = Found(
        path=path,
        source=source,
        title=title,
        mmproj=next(iter(projectors), None),
        error="it needs an adapter that only Ollama applies" if alien else None,
        manifest=path,
        digest=manifest.digest,
        preset=read_preset(layout, manifest),
        adapters=tuple(adapters),
    )
    if len(models) > 1 and source is Source.LIBRARY:
        first = manifest.of_kind("model")[0].digest
        models = [layout.shard(first, number, len(models)) for number in range(1, len(models) + 1)]
    if alien:
        yield common
    else:
        yield from (replace(common, path=model) for model in models[: None if source is Source.LIBRARY else 1])


def _blobs(layout: Layout, manifest: Manifest, kind: str) -> list[Path]:
    """The blobs of the layers of a kind; nothing that is no digest becomes a path."""
    paths = []
    for layer in manifest.of_kind(kind):
        with suppress(ValueError):
            paths.append(layout.blob(layer.digest))
    return paths


def _ollama_title(host: str, namespace: str, name: str, tag: str) -> str:
    """Return a model's name as Ollama prints it, with the tag."""
    known = "" if host == "registry.ollama.ai" else f"{host}/"
    owner = "" if not known and namespace == "library" else f"{namespace}/"
    return f"{known}{owner}{name}:{tag}"


def _read_text(path: Path) -> str:
    return read_small(path).decode(errors="replace")
