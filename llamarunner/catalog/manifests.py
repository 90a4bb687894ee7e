"""Ollama's layout on disk, which LlamaRunner's own library has too, and the one place that makes paths of names.

    manifests/<host>/<namespace>/<model>/<tag>   JSON: the layers of a model, by their digests
    blobs/sha256-<64 hex>                        the layers
    shards/<64 hex>/model-00001-of-00003.gguf    links to the blobs of a model in several files, which llama.cpp finds
                                                 by their names; only in our library

Nothing that a stranger sends becomes a path in any other way: a name's parts and a digest must have their exact form,
and what is written must lie in the folder also when all links are followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from llamarunner.catalog.entry import Preset

OLLAMA_LAYER = "application/vnd.ollama.image."
BLOB_PREFIX = "sha256-"
SMALL_BYTES = 1 << 20  # of a manifest, and of every layer that is text

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_TEXTS = ("system", "template")


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a model, and what it is for."""

    media_type: str
    digest: str  # as the manifest has it; `Layout.blob` judges it
    size: int = -1  # bytes; negative where the manifest does not say it

    @property
    def kind(self) -> str:
        """What Ollama calls it: model, projector, adapter, system, template, params, messages, license."""
        return self.media_type.removeprefix(OLLAMA_LAYER) if self.media_type.startswith(OLLAMA_LAYER) else ""

    def document(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Manifest:
    """The layers of a model, in their order, and the bytes that say so."""

    layers: tuple[Layer, ...]
    config: Layer | None
    data: bytes

    @property
    def digest(self) -> str:
        """What Ollama calls the digest of a model: 64 hexadecimal digits."""
        return sha256(self.data).hexdigest()

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """All layers, that of the configuration last."""
        return (*self.layers, *((self.config,) if self.config else ()))

    def of_kind(self, kind: str) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.kind == kind)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store."""

    root: Path

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def shards(self) -> Path:
        return self.root / "shards"

    def manifest(self, parts: Sequence[str]) -> Path:
        """The manifest of host, namespace, model and tag. Raises ValueError."""
        if len(parts) != 4 or not all(map(_PART.fullmatch, parts)):
            raise ValueError("not the parts of a name")
        return self.root.joinpath("manifests", *parts)

    def blob(self, digest: str) -> Path:
        """The blob of a digest, `sha256:…` or `sha256-…` with small digits. Raises ValueError."""
        return self.blobs / f"{BLOB_PREFIX}{hex_of(digest)}"

    def shard(self, first: str, number: int, count: int) -> Path:
        """The link to one file of a model of several, named after the digest of its first. Raises ValueError."""
        return self.shards / hex_of(first) / f"model-{number:05d}-of-{count:05d}.gguf"

    def manifests(self) -> Iterator[Path]:
        """Yield every manifest that is there."""
        try:
            found = sorted(self.root.glob("manifests/*/*/*/*"))
        except OSError:
            return
        yield from (path for path in found if not path.name.startswith("."))

    def confined(self, path: Path) -> Path:
        """Return the path if its folder, all links followed, lies in the store. Raises ValueError."""
        if not path.parent.resolve().is_relative_to(self.root.resolve()):
            raise ValueError("a link leads out of the folder")
        return path


def hex_of(digest: str) -> str:
    """The digits of a digest. Raises ValueError."""
    match = _DIGEST.fullmatch(digest)
    if not match:
        raise ValueError("not a digest")
    return match[1]


def is_digest(text: str) -> bool:
    """Whether a text is a digest as manifests have it."""
    return text.startswith("sha256:") and _DIGEST.fullmatch(text) is not None


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises ValueError."""
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
        raise ValueError("no list of layers")
    layers = tuple(layer for one in document["layers"] if (layer := _layer(one)))
    return Manifest(layers, _layer(document.get("config")), data)


def read_preset(layout: Layout, manifest: Manifest) -> Preset:
    """Read what a model brings along besides its weights; what cannot be read is passed over."""
    texts = {kind: "".join(_texts(layout, manifest, kind)[:1]) for kind in _TEXTS}
    parameters = _json(_texts(layout, manifest, "params"))
    messages = _json(_texts(layout, manifest, "messages"))
    return Preset(
        **texts,
        parameters=parameters if isinstance(parameters, dict) else {},
        messages=tuple(one for one in messages if isinstance(one, dict)) if isinstance(messages, list) else (),
        license=tuple(_texts(layout, manifest, "license")),
    )


def read_small(path: Path) -> bytes:
    """Return a small regular file, or nothing where it cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(SMALL_BYTES)
    except OSError:
        return b""


def _layer(value: Any) -> Layer | None:
    if not isinstance(value, dict):
        return None
    kind, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(kind, str) or not isinstance(digest, str):
        return None
    return Layer(kind, digest, size if isinstance(size, int) and not isinstance(size, bool) else -1)


def _texts(layout: Layout, manifest: Manifest, kind: str) -> list[str]:
    texts = []
    for layer in manifest.of_kind(kind):
        try:
            texts.append(read_small(layout.blob(layer.digest)).decode(errors="replace"))
        except ValueError:
            continue
    return texts


def _json(texts: Sequence[str]) -> object:
    try:
        value = json.loads(texts[0]) if texts else None
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # or it could not be told to anybody
    except (ValueError, RecursionError):
        return None
    return value
