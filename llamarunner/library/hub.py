"""Models from Hugging Face: `hf.co/owner/repository[:quantisation or file]`.

`huggingface_hub` tells the files of a repository, with their sizes and sha256; they are brought as any others are.
HF_ENDPOINT and HF_TOKEN, or the token that `hf auth login` keeps, count as they do there.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from yarl import URL

from llamarunner.catalog.manifests import OLLAMA_LAYER, Layer, is_digest
from llamarunner.catalog.naming import shard_of, split_quantization, stem_of
from llamarunner.dialects.ollama.names import TAG, Name
from llamarunner.library.download import NOT_THERE, Wanted
from llamarunner.library.faults import NotOffered, PullFailed
from llamarunner.library.registry import LARGEST_BYTES, Offer

HOSTS = ("hf.co", "huggingface.co")
ASK_SECONDS = 30.0
NO_NAME = "invalid model name"

_PREFERRED = ("Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_0", "Q4_1", "MXFP4", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "Q3_K_M")
_PREFERRED_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")
_NO_MODELS = ("mmproj", "imatrix")  # in the names of files that are no models


@dataclass(frozen=True, slots=True)
class File:
    """One file of a repository."""

    path: str
    size: int
    sha256: str | None  # of those that Git LFS keeps, as it does all large ones

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def quantization(self) -> str:
        """What its name says, or else its folder's, in capitals."""
        shard = shard_of(self.name)
        stem = shard.stem if shard else stem_of(self.name)
        own = split_quantization(stem)[1] or split_quantization(PurePosixPath(self.path).parent.name)[1]
        return (own or "").upper().replace("FP", "F")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the models of a repository, as it may be pulled."""

    tag: str
    file: str  # the name of its first file
    quantization: str | None
    size: int  # bytes of all its files
    usual: bool  # what is pulled where no tag says otherwise


def endpoint() -> URL:
    """Where the hub is."""
    from huggingface_hub import constants

    return URL(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)


def find(name: Name) -> Offer:
    """Ask the hub for a model; blocks. Raises PullFailed."""
    from huggingface_hub import get_token

    base, token = endpoint(), get_token()
    repository = f"{name.namespace}/{name.model}"
    revision, files = _listed(repository)
    if _hears(files):
        get = f"run `hf download {repository}` instead, and it is found"
        raise PullFailed(f"pull model manifest: the repository has no GGUF files, but a speech model; {get}")
    chosen = [(file, "model") for file in choose(files, name.tag)]
    chosen += [(file, "projector") for file in projector(files)]
    place = base / repository / "resolve" / revision
    layers = [Layer(f"{OLLAMA_LAYER}{kind}", _digest(file), file.size) for file, kind in chosen]
    wanted = {
        layer.digest: Wanted(place.joinpath(*file.path.split("/")), file.size, layer.digest, token)
        for layer, (file, _) in zip(layers, chosen, strict=True)
    }
    return Offer(tuple(wanted.values()), tuple(layers))


def search(term: str, limit: int) -> list[str]:
    """Find repositories with GGUF files, those that are downloaded most first; blocks. Raises PullFailed."""
    from huggingface_hub import HfApi, get_token

    api = HfApi(endpoint=str(endpoint()).rstrip("/"), token=get_token() or False)
    try:
        found = list(api.list_models(search=term or None, filter="gguf", sort="downloads", limit=limit))
        return [str(one.id) for one in found][:limit]
    except Exception as error:
        raise PullFailed(f"search: {_reason(error, endpoint().host)}") from error


def choices(repository: str) -> list[Choice]:
    """Which models a repository has, `owner/name`; blocks. Raises PullFailed."""
    _, files = _listed(repository)
    models = sorted(_models(files), key=_order)
    return [
        Choice(
            tag=first.quantization or stem_of(first.name),
            file=first.name,
            quantization=first.quantization or None,
            size=sum(file.size for file in model),
            usual=at == 0,
        )
        for at, model in enumerate(models)
        for first in [model[0]]
    ]


def _listed(repository: str) -> tuple[str, list[File]]:
    """The revision of a repository, and its files. Raises PullFailed."""
    from huggingface_hub import HfApi, get_token

    try:
        info = HfApi(endpoint=str(endpoint()).rstrip("/")).model_info(
            repository, files_metadata=True, timeout=ASK_SECONDS, token=get_token() or False
        )
        return info.sha or "main", [_file(one) for one in info.siblings or ()]
    except Exception as error:  # httpx's, huggingface_hub's, and what their readers of JSON raise
        reason = _reason(error, endpoint().host)
        kind = NotOffered if reason in (NOT_THERE, NO_NAME) else PullFailed
        raise kind(f"pull model manifest: {reason}") from error


def choose(files: Sequence[File], tag: str) -> list[File]:
    """Choose the model that a tag means, all its files in order: a quantisation, a file's name, or what is usual.

    Raises PullFailed.
    """
    models = _models(files)
    if not models:
        raise NotOffered("pull model manifest: the repository has no GGUF files")
    if tag.casefold() != TAG:
        fitting = [model for model in models if _means(tag, model[0])]
        if not fitting:
            there = ", ".join(sorted({model[0].quantization or model[0].name for model in models}))
            raise NotOffered(f"pull model manifest: the repository has no {tag}; it has {there}")
        models = fitting
    return min(models, key=_order)


def projector(files: Sequence[File]) -> list[File]:
    """Choose the eyes of the models of a repository, if it has any."""
    found = [file for file in _ggufs(files) if "mmproj" in file.name.casefold()]
    return [min(found, key=lambda file: (_rank(file, _PREFERRED_PROJECTORS), file.path))] if found else []


def _hears(files: Sequence[File]) -> bool:
    """Whether the files look like a model of CTranslate2, as Whisper's are, and nothing else."""
    return not _ggufs(files) and {"model.bin", "config.json"} <= {file.path for file in files}


def _models(files: Sequence[File]) -> list[list[File]]:
    """The models of a repository, each with all its files; of those in several files only what is complete."""
    groups: defaultdict[object, list[File]] = defaultdict(list)
    for file in sorted(_ggufs(files), key=lambda file: file.path):
        if any(word in file.name.casefold() for word in _NO_MODELS):
            continue
        shard = shard_of(file.name)
        groups[(PurePosixPath(file.path).parent, shard.stem, shard.count) if shard else file.path].append(file)
    return [group for group in groups.values() if _is_complete(group)]


def _ggufs(files: Sequence[File]) -> list[File]:
    return [file for file in files if file.name.casefold().endswith(".gguf")]


def _is_complete(group: Sequence[File]) -> bool:
    shard = shard_of(group[0].name)
    return shard is None or shard.count == len(group)


def _means(tag: str, file: File) -> bool:
    wanted = tag.casefold()
    names = {file.name, stem_of(file.name), file.quantization, file.quantization.removeprefix("UD-")}
    return wanted in {name.casefold() for name in names if name}


def _order(model: Sequence[File]) -> tuple[int, bool, int, str]:
    """The usual quantisation first, plain ones before others of that kind; then the smallest."""
    first = model[0]
    return _rank(first, _PREFERRED), first.quantization not in _PREFERRED, sum(file.size for file in model), first.path


def _rank(file: File, preferred: Sequence[str]) -> int:
    kind = file.quantization.removeprefix("UD-")
    return preferred.index(kind) if kind in preferred else len(preferred)


def _file(told: Any) -> File:
    """One file as huggingface_hub tells it. Raises ValueError, TypeError."""
    kept = told.lfs or told
    return File(str(told.rfilename), int(kept.size or 0), str(kept.sha256) if told.lfs else None)


def _digest(file: File) -> str:
    if file.sha256 is None:
        raise PullFailed("pull model manifest: the repository does not tell the sha256 of its files")
    digest = f"sha256:{file.sha256}"
    if not is_digest(digest) or not 0 < file.size <= LARGEST_BYTES or ".." in file.path.split("/"):
        raise PullFailed("pull model manifest: what the hub says of the files cannot be meant")
    return digest


def _reason(error: Exception, host: str | None) -> str:
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "access denied: accept the model's terms on Hugging Face, and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            return NOT_THERE
        case errors.HFValidationError():
            return NO_NAME
        case errors.HfHubHTTPError() if error.response is not None:
            return f"{host} says {error.response.status_code}"
    return f"{host} cannot be reached; is this machine online?"
