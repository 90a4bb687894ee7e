"""Speech models: folders in CTranslate2's format, and the names under which the world knows Whisper's sizes.

Such a folder holds `model.bin`, `config.json`, `vocabulary.json` or `.txt`, `tokenizer.json` and mostly
`preprocessor_config.json`. Other CTranslate2 models look alike; Whisper's has alignment heads and language ids in its
configuration. Sizes are told by the folder's or the repository's name: nothing in the files says them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from llamarunner.catalog.discover import WEIGHTS, Found
from llamarunner.catalog.naming import slug

FORMAT = "CTranslate2"
CONFIG_BYTES = 1 << 20
_SIGNS = frozenset({"alignment_heads", "lang_ids", "suppress_ids_begin"})
_SIZE = re.compile(
    r"(?:faster-)?(?P<distil>distil-)?(?:whisper-)?(?P<distil2>distil-)?"
    r"(?P<size>tiny|base|small|medium|large|turbo)(?P<english>\.en)?(?P<version>-v[123](?:\.5)?)?(?P<turbo>-turbo)?"
    r"(?:-ct2)?(?:-(?:int8|float16|float32|bfloat16|int8[_-]float\w+))?"
)
_PREFIXES = ("", "whisper-", "faster-whisper-", "openai/whisper-")
_LARGE = ("large-v3", "large-v2", "large-v1", "large-v3-turbo")  # which of them "large" is, as far as they are there
_REPOSITORIES = {
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}


def is_speech(found: Found) -> bool:
    """Tell whether a file of weights belongs to a Whisper model."""
    return found.path.name == WEIGHTS and bool(_SIGNS & _keys(found.path.parent / "config.json"))


def fault_of(folder: Path) -> str | None:
    """What a folder lacks without which the model cannot be used, or not without the network."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        return f"its folder cannot be read: {error.strerror}"
    if not names & {"vocabulary.json", "vocabulary.txt"}:
        return "vocabulary.json is missing"
    return None if "tokenizer.json" in names else "tokenizer.json is missing"


def base_of(found: Found) -> str:
    """The id of a speech model: `whisper-base` for any repository of that size, else its folder's name."""
    size = repository_size(found)
    return f"whisper-{size}" if size else slug(_folder(found)) or "whisper"


def size_of(name: str) -> str | None:
    """Read one of the many names of a size of Whisper, such as `base`, `small.en`, `large-v3-turbo`, in one way."""
    last = name.casefold().rsplit("/", 1)[-1]
    match = _SIZE.fullmatch(last)
    if match is None:
        return None
    if match["size"] == "turbo":
        return "large-v3-turbo"
    distil = "distil-" if match["distil"] or match["distil2"] else ""
    return distil + match["size"] + "".join(match[part] or "" for part in ("english", "version", "turbo"))


def spellings(found: Found, sizes: Collection[str]) -> Iterator[str]:
    """Yield the names, casefolded, of a speech model; `sizes` are all that are there."""
    size = repository_size(found)
    folder = _folder(found).casefold()
    yield from (folder, base_of(found))
    if published := len(found.parts) > 2:
        yield f"{found.parts[0]}/{found.parts[1]}".casefold()
    if size is None:
        return
    said = [size, *(["large"] if size == next((one for one in _LARGE if one in sizes), None) else [])]
    said += ["turbo"] if size == "large-v3-turbo" else []
    prefixes = _PREFIXES if published else (*_PREFIXES, "systran/faster-whisper-")
    yield from (prefix + one for prefix in prefixes for one in said)
    if size.startswith("distil-"):
        short = size.removeprefix("distil-")
        yield from (f"distil-whisper-{short}", f"distil-whisper/{size}", f"systran/faster-distil-whisper-{short}")


def repository_size(found: Found) -> str | None:
    """The size that a file of weights is of; what was called plain "large" was the first version."""
    size = size_of(_folder(found))
    return "large-v1" if size == "large" else size


def how_to_get(name: str) -> str | None:
    """The repository of a size of Whisper that is known by this name."""
    size = size_of(name)
    if size is None:
        return None
    size = "large-v3" if size == "large" else size
    if size.startswith("distil-"):
        return _REPOSITORIES.get(size, f"Systran/faster-distil-whisper-{size.removeprefix('distil-')}")
    return _REPOSITORIES.get(size, f"Systran/faster-whisper-{size}")


def sizes_of(all_found: Iterable[Found]) -> frozenset[str]:
    return frozenset(size for found in all_found if (size := repository_size(found)))


def _folder(found: Found) -> str:
    """The name of a model's folder, or of the nearest one above it that names a size; as its store has them."""
    names = found.parts[-2::-1] or (found.path.parent.name,)
    return next((name for name in names if size_of(name)), names[0])


def _keys(config: Path) -> frozenset[str]:
    try:
        with config.open("rb") as file:
            document = json.loads(file.read(CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    return frozenset(document) if isinstance(document, dict) else frozenset()
