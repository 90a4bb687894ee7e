"""New models of others: what is asked for, and the layers that it comes to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llamarunner.catalog import ModelEntry
from llamarunner.catalog.kinds import Kind, kind_of
from llamarunner.catalog.manifests import OLLAMA_LAYER, SMALL_BYTES, Layer, Layout, Manifest, read_small
from llamarunner.catalog.readings import Readings
from llamarunner.dialects.ollama import options
from llamarunner.errors import InvalidRequest
from llamarunner.gguf import Header
from llamarunner.library.blobs import Blobs, canonical
from llamarunner.library.registry import CONFIG_TYPE, MEDIA_TYPE

_ONLY_GGUF = "only GGUF files can be used here"
_ANY_CONTEXT = 4096
_MOST_LICENSES = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a model is to be made of; what is empty is left as the model has it that it is made from."""

    name: str
    from_: str = ""
    files: Mapping[str, str] = field(default_factory=dict)  # file name → digest of an uploaded blob
    adapters: Mapping[str, str] = field(default_factory=dict)
    template: str = ""
    system: str = ""
    license: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)
    messages: tuple[Mapping[str, object], ...] = ()
    quantize: str = ""

    def check(self) -> None:
        """Raises InvalidRequest, or WrongOption, for what can be told without looking at any file."""
        if self.quantize:
            raise InvalidRequest(
                "quantize is not supported: quantise the model with llama.cpp's llama-quantize, and create from that",
                param="quantize",
            )
        if not self.from_ and not self.files:
            raise InvalidRequest("neither 'from' or 'files' was specified", param="from")
        if len(self.license) > _MOST_LICENSES:
            raise InvalidRequest(f"license must hold at most {_MOST_LICENSES} texts", param="license")
        for digest in (*self.files.values(), *self.adapters.values()):
            canonical(digest)
        options.sampling(self.parameters, _ANY_CONTEXT)
        options.loading(self.parameters)


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer, and whether it is new."""

    layer: Layer
    new: bool = False

    @property
    def status(self) -> str:
        return f"{'creating new' if self.new else 'using existing'} layer {self.layer.digest}"


def file_layers(recipe: Recipe, blobs: Blobs) -> list[Layer]:
    """The layers that the uploaded files are; blocks. Raises InvalidRequest."""
    layers = [_layer_of(name, digest, "files", blobs) for name, digest in sorted(recipe.files.items())]
    layers += [_layer_of(name, digest, "adapters", blobs) for name, digest in sorted(recipe.adapters.items())]
    models = [layer for layer in layers if layer.kind == "model"]
    headers = [Readings().read(blobs.path(layer.digest)).header for layer in models]
    if len(models) > 1 and any((header.number("split.count") if header else 0) != len(models) for header in headers):
        raise InvalidRequest("files holds several models, or not all files of one", param="files")
    if recipe.files and not models and not recipe.from_:
        raise InvalidRequest("files holds no model", param="files")
    return layers


def _layer_of(name: str, digest: str, field_: str, blobs: Blobs) -> Layer:
    path = blobs.path(digest)
    if not path.is_file():
        raise InvalidRequest(f'blob "{canonical(digest)}" not found', param=field_)
    reading = Readings().read(path)
    header = reading.header
    if header is None:
        raise InvalidRequest(f"'{name}' cannot be read: {reading.error}; {_ONLY_GGUF}", param=field_)
    kind = "adapter" if header.text("general.type") == "adapter" else str(kind_of(header))
    fits = kind == "adapter" if field_ == "adapters" else kind in (Kind.MODEL, Kind.PROJECTOR)
    if not fits:
        raise InvalidRequest(f"'{name}' is not what {field_} may hold, but {kind}", param=field_)
    return Layer(f"{OLLAMA_LAYER}{kind}", canonical(digest), reading.size)


def with_texts(recipe: Recipe, base: Sequence[Layer], layout: Layout, blobs: Blobs) -> list[Placed]:
    """Add to the layers of the base what the recipe says; blocks. Its files have taken the places of their kinds."""
    texts: dict[str, bytes] = {}
    if recipe.template:
        texts["template"] = recipe.template.encode()
    if recipe.system:
        texts["system"] = recipe.system.encode()
    if recipe.parameters:
        texts["params"] = _json({**_parameters(base, layout), **recipe.parameters})
    if recipe.messages:
        texts["messages"] = _json(list(recipe.messages))
    _check_sizes(recipe, texts)
    kept = [Placed(layer) for layer in base if layer.kind not in texts]
    added = [("license", text.encode()) for text in recipe.license] + list(texts.items())
    return kept + [_added(kind, data, blobs) for kind, data in added]


def _check_sizes(recipe: Recipe, texts: Mapping[str, bytes]) -> None:
    """Refuse what would not be read back. Raises InvalidRequest."""
    for kind, data in (*texts.items(), *(("license", text.encode()) for text in recipe.license)):
        if len(data) > SMALL_BYTES:
            field_ = "parameters" if kind == "params" else kind
            raise InvalidRequest(f"{field_} must have at most {SMALL_BYTES} bytes", param=field_)


def _parameters(base: Sequence[Layer], layout: Layout) -> dict[str, object]:
    found = next((layer for layer in base if layer.kind == "params"), None)
    try:
        told = json.loads(read_small(layout.blob(found.digest))) if found else {}
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _added(kind: str, data: bytes, blobs: Blobs) -> Placed:
    digest, new = blobs.add(data)
    return Placed(Layer(f"{OLLAMA_LAYER}{kind}", digest, len(data)), new)


def configured(layers: Sequence[Layer], layout: Layout, blobs: Blobs) -> tuple[bytes, Placed]:
    """Write the configuration of a model as Ollama does, and return its manifest; blocks. Raises InvalidRequest."""
    first = next(layer for layer in layers if layer.kind == "model")
    header = Readings().read(layout.blob(first.digest)).header
    config = _added("", _json(_configuration(layers, header)), blobs)
    placed = Placed(Layer(CONFIG_TYPE, config.layer.digest, config.layer.size), config.new)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE,
        "config": placed.layer.document(),
        "layers": [layer.document() for layer in layers],
    }
    data = _json(manifest)
    if len(data) > SMALL_BYTES:
        raise InvalidRequest("the model has too many parts", param="files")
    return data, placed


def _configuration(layers: Sequence[Layer], header: Header | None) -> dict[str, object]:
    family = (header.architecture if header else None) or ""
    return {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family] if family else [],
        "file_type": (header.quantization if header else None) or "unknown",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def place_of(entry: ModelEntry) -> Layout | None:
    """The store whose manifest names a model."""
    return Layout(entry.manifest.parents[4]) if entry.manifest else None


def borrow(manifest: Manifest, store: Layout, blobs: Blobs) -> None:
    """Link the blobs of a model in another store; blocks. Raises ValueError, OSError."""
    for layer in manifest.blobs:
        blobs.link(store.blob(layer.digest), layer.digest)


def file_layer(path: Path, kind: str, digest: str, blobs: Blobs) -> Layer:
    """Link a file of the person's; blocks. `digest` is 64 hexadecimal digits. Raises OSError."""
    blobs.link(path, f"sha256:{digest}")
    return Layer(f"{OLLAMA_LAYER}{kind}", f"sha256:{digest}", path.stat().st_size)
