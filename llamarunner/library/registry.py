"""Models by name from a registry, by the protocol that Ollama's has: Docker's registry API, version 2.

GET {registry}/v2/{namespace}/{model}/manifests/{tag}
GET {registry}/v2/{namespace}/{model}/blobs/{digest}      → often a redirect to a content network
"""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from llamarunner.catalog.manifests import SMALL_BYTES, Layer, Manifest, is_digest, parse_manifest
from llamarunner.dialects.ollama.names import Name
from llamarunner.library.download import NOT_THERE, Downloads, Wanted, refusal
from llamarunner.library.faults import NotOffered, PullFailed

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MOST_LAYERS = 1000
LARGEST_BYTES = 1 << 50


@dataclass(frozen=True, slots=True)
class Offer:
    """What a place has under a name."""

    wanted: tuple[Wanted, ...]  # each file once, in order
    layers: tuple[Layer, ...]  # without that of the configuration
    manifest: Manifest | None = None  # as the place has it, if it has one


async def find(downloads: Downloads, base: URL, name: Name) -> Offer:
    """Ask a registry for a model. Raises PullFailed."""
    place = base / "v2" / name.namespace / name.model
    try:
        status, body = await downloads.small(place / "manifests" / name.tag, SMALL_BYTES, {"Accept": MEDIA_TYPE})
        if status != 200:
            reason = refusal(status)
            raise (NotOffered if reason == NOT_THERE else PullFailed)(reason)
        manifest = parse_manifest(body)
        _check(manifest)
    except PullFailed as error:
        raise type(error)(f"pull model manifest: {error.message}") from None
    except ValueError as error:
        raise PullFailed(f"pull model manifest: it is damaged ({error})") from None
    blobs = {layer.digest: Wanted(place / "blobs" / layer.digest, layer.size, layer.digest) for layer in manifest.blobs}
    return Offer(tuple(blobs.values()), manifest.layers, manifest)


def _check(manifest: Manifest) -> None:
    """Raise ValueError for a manifest that cannot be meant, PullFailed for one that cannot be run here."""
    if len(manifest.blobs) > MOST_LAYERS:
        raise ValueError("too many layers")
    sizes: dict[str, int] = {}
    for layer in manifest.blobs:
        if not is_digest(layer.digest):
            raise ValueError("not a digest")
        if not 0 <= layer.size <= LARGEST_BYTES or sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise ValueError("not a size")
    if not manifest.of_kind("model"):
        raise PullFailed("the model has no GGUF file, and cannot be run here")
