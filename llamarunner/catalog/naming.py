"""How models are called: ids from file names, and the other names by which each can be found. Pure.

An id is the file's name without what llama.cpp and quantisers append. It grows only where it must: by the
quantisation where files differ by it, by the publisher where that is not enough, at last by a few digits that the
file's place gives. So an id depends on which models there are, and never on the order in which they were found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, product

from llamarunner.catalog.discover import Found
from llamarunner.catalog.entry import Source

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_QUANTIZATION = re.compile(
    r"(?:^|[-._ ])"
    r"(?P<name>(?:ud-|i1-)?(?:i?q[1-8](?:_[0-9a-z]{1,3})*|i2_s|tq[12]_0|bf16|fp?16|fp?32|mxfp4(?:_moe)?|nvfp4))$",
    re.IGNORECASE,
)
_REPOSITORY_ENDING = re.compile(r"[-._]gguf$", re.IGNORECASE)
_GENERIC = frozenset({"", "ggml", "ggml-model", "gguf", "model"})  # names that say nothing without their folder
_LATEST = ":latest"


@dataclass(frozen=True, slots=True)
class Shard:
    """The place of a file in a model of several files; `number` counts from 1."""

    stem: str
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Name:
    """What an id is made of."""

    base: str
    quantization: str | None
    publisher: str | None
    place: str  # differs between any two models
    full: str | None = None  # Ollama's name with its tag, for where the short one is taken
    fixed: bool = False  # given by a person to a model in our library: others make way


def stem_of(file: str) -> str:
    return file[: -len(".gguf")] if file.lower().endswith(".gguf") else file


def shard_of(file: str) -> Shard | None:
    match = _SHARD.fullmatch(stem_of(file))
    return Shard(match["stem"], int(match["number"]), int(match["count"])) if match else None


def split_quantization(stem: str) -> tuple[str, str | None]:
    """Split `Qwen2.5-7B-Q4_K_M` into `Qwen2.5-7B` and `Q4_K_M`."""
    match = _QUANTIZATION.search(stem)
    return (stem[: match.start()], match["name"]) if match else (stem, None)


def slug(text: str) -> str:
    """Return the text as a part of an id: small letters, digits, dots, dashes and underscores."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^a-z0-9._-]", "-", text.lower())).strip("-._")


def name_of(found: Found, quantization: str | None = None) -> Name:
    """Name a file; `quantization` is what its header says, for files that do not say it themselves."""
    if found.title:
        full = re.sub(r"[^a-z0-9._/:-]", "-", found.title.lower())
        own = found.source is Source.LIBRARY
        return Name(full.removesuffix(_LATEST), None, None, str(found.path), full, own)
    base, said = split_quantization(_stem_without_shard(found))
    return Name(
        base=_base(found, base),
        quantization=slug(said or quantization or "") or None,
        publisher=publisher_of(found),
        place=str(found.path),
    )


def publisher_of(found: Found) -> str | None:
    """Return who published a file, where its store says so: `publisher/repository/file`."""
    return slug(found.parts[0]) or None if len(found.parts) > 2 else None


def _stem_without_shard(found: Found) -> str:
    file = _file_name(found)
    shard = shard_of(file)
    return shard.stem if shard else stem_of(file)


def _file_name(found: Found) -> str:
    return found.parts[-1] if found.parts else found.path.name


def _base(found: Found, base: str) -> str:
    """Return the file's own name, or the nearest folder's that says more."""
    for candidate in (base, *reversed(found.parts[:-1])):
        name = slug(_REPOSITORY_ENDING.sub("", split_quantization(candidate)[0]))
        if name not in _GENERIC:
            return name
    return "model"


def assign_ids(names: Sequence[Name]) -> list[str]:
    """Give each model an id that no other has; of those that only their place tells apart, the first keeps it plain."""
    ids = _with_quantization(names)
    taken = Counter(ids)
    ids = [
        _with_publisher(name, label) if taken[label] > 1 and not name.fixed else label
        for name, label in zip(names, ids, strict=True)
    ]
    used: set[str] = set()
    for index, name in sorted(enumerate(names), key=lambda numbered: not numbered[1].fixed):
        if ids[index] in used:
            ids[index] += f"-{sha256(name.place.encode(errors='surrogateescape')).hexdigest()[:8]}"
        used.add(ids[index])
    return ids


def _with_quantization(names: Sequence[Name]) -> list[str]:
    kinds: defaultdict[str, set[str | None]] = defaultdict(set)
    for name in names:
        kinds[name.base].add(name.quantization)
    return [
        f"{name.base}-{name.quantization}" if name.quantization and len(kinds[name.base]) > 1 else name.base
        for name in names
    ]


def _with_publisher(name: Name, label: str) -> str:
    return name.full or (f"{name.publisher}/{label}" if name.publisher else label)


def spellings(found: Found, name: Name, quantization: str | None) -> Iterator[str]:
    """Yield the names, casefolded, by which people may ask for a model, its id aside."""
    if found.title:
        title = found.title.casefold()
        for place in ("", "library/", "registry.ollama.ai/", "registry.ollama.ai/library/"):
            yield f"{place}{title}"
            yield f"{place}{title.removesuffix(_LATEST)}"
    else:
        plain = (*_paths(found), *_bases(found, name))
        said = {name.quantization, slug(quantization or "")} - {None, ""}
        yield from plain
        yield from (f"{base}{mark}{kind}" for base, mark, kind in product(_bases(found, name), "-:@", said))


def _paths(found: Found) -> Iterator[str]:
    """Yield the path below its store, from every folder on, with and without its ending."""
    file = _file_name(found)
    folders = [*accumulate(reversed(found.parts[:-1]), lambda path, folder: f"{folder}/{path}")]
    for folder, last in product(("", *folders), (file, stem_of(file), _stem_without_shard(found))):
        yield f"{folder}/{last}".lstrip("/").casefold()


def _bases(found: Found, name: Name) -> Iterator[str]:
    """Yield the names that leave the quantisation open."""
    yield name.base
    if name.publisher:
        publisher, repository = (part.casefold() for part in found.parts[:2])
        short = _REPOSITORY_ENDING.sub("", repository)
        yield from (repository, short, f"{publisher}/{name.base}", f"{publisher}/{repository}", f"{publisher}/{short}")
