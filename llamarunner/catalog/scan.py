"""From files found to entries: shards joined, duplicates merged, projectors paired, ids given."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from llamarunner.catalog import speech
from llamarunner.catalog.discover import WEIGHTS, Found, discover
from llamarunner.catalog.entry import NO_PRESET, Capability, ModelEntry, Source, Stamp
from llamarunner.catalog.kinds import Kind, capabilities_of, kind_of, why_unusable
from llamarunner.catalog.naming import (
    Name,
    Shard,
    assign_ids,
    name_of,
    publisher_of,
    shard_of,
    spellings,
)
from llamarunner.catalog.places import Places
from llamarunner.catalog.readings import Reading, Readings
from llamarunner.config import Settings
from llamarunner.gguf import Header

_NAMED_MISSING = 5  # so many missing shards are named, the others counted
_PROJECTOR_WORDS = frozenset({"", "mmproj", "model", "ggml", "gguf", "projector", "vision", "clip"})
_PREFERRED_PROJECTORS = ("F16", "BF16", "Q8_0")
_RANKS = {source: rank for rank, source in enumerate(Source)}


@dataclass(slots=True)
class Candidate:
    """A model in the making: its files, and every way in which it was found."""

    found: list[Found]
    readings: tuple[Reading, ...]
    error: str | None = None
    projector: Reading | None = None
    speech: bool = False
    name: Name = field(init=False)

    def __post_init__(self) -> None:
        self.error = self.error or _fault(self.readings)
        first = self.found[0]
        if self.speech:
            self.name = Name(speech.base_of(first), None, publisher_of(first), str(first.path))
        else:
            self.name = name_of(first, self.header.quantization if self.header else None)

    @property
    def header(self) -> Header | None:
        return self.readings[0].header

    @property
    def kind(self) -> Kind:
        """Return what it is; a file that cannot be read is taken for a model, to be listed with its fault."""
        return kind_of(self.header) if self.header else Kind.MODEL


def scan(settings: Settings, places: Places, readings: Readings) -> tuple[ModelEntry, ...]:
    """Read all places and return every model, usable or not, sorted by id."""
    found = sorted(
        discover(settings.catalog, places), key=lambda one: (_RANKS[one.source], str(one.path), one.title or "")
    )
    weights = [one for one in found if one.path.name == WEIGHTS]
    bundles = _bundles([one for one in found if one.path.name != WEIGHTS])
    candidates = _merged(chain((_candidate(files, readings) for files in bundles), _speech(weights, readings)))
    models = [candidate for candidate in candidates if candidate.kind is Kind.MODEL]
    projectors = [candidate for candidate in candidates if candidate.kind is Kind.PROJECTOR]
    for model in models:
        model.projector = _projector_for(model, models, projectors, readings)
    ids = assign_ids([model.name for model in models])
    for model, model_id in zip(models, ids, strict=True):
        if configured := settings.for_model(model_id).mmproj:
            model.projector = readings.read(configured)
    readings.forget_unused()
    sizes = speech.sizes_of(one for model in models if model.speech and not model.error for one in model.found)
    entries = (
        _speech_entry(model, model_id, sizes) if model.speech else _entry(model, model_id)
        for model, model_id in zip(models, ids, strict=True)
    )
    return tuple(sorted(entries, key=lambda entry: entry.id))


def _bundles(found: Sequence[Found]) -> Iterator[list[Found]]:
    """Group the shards of one model; every other file is alone."""
    bundles: dict[object, list[Found]] = {}
    for index, one in enumerate(found):
        shard = shard_of(one.path.name)
        key: object = (one.scope, one.title, shard.stem, shard.count) if shard else index
        bundles.setdefault(key, []).append(one)
    yield from bundles.values()


def _candidate(files: list[Found], readings: Readings) -> Candidate:
    read = tuple(readings.read(one.path) for one in files)
    return Candidate([files[0]], read, files[0].error or _missing_shards(files))


def _speech(weights: Iterable[Found], readings: Readings) -> Iterator[Candidate]:
    for one in weights:
        if speech.is_speech(one):
            yield Candidate([one], (readings.weigh(one.path),), speech.fault_of(one.path.parent), speech=True)


def _missing_shards(files: Sequence[Found]) -> str | None:
    shards = [shard for one in files if (shard := shard_of(one.path.name))]
    if not shards:
        return None
    first, there = shards[0], {shard.number for shard in shards}
    missing = [number for number in range(1, first.count + 1) if number not in there]
    if not missing:
        return None
    named = ", ".join(_shard_name(first, number) for number in missing[:_NAMED_MISSING])
    more = f" and {len(missing) - _NAMED_MISSING} more" if len(missing) > _NAMED_MISSING else ""
    return f"{len(missing)} of {first.count} files are missing: {named}{more}"


def _shard_name(shard: Shard, number: int) -> str:
    return f"{shard.stem}-{number:05d}-of-{shard.count:05d}.gguf".encode(errors="replace").decode()


def _fault(readings: Sequence[Reading]) -> str | None:
    """Return what is wrong with the files of a model."""
    for number, reading in enumerate(readings, start=1):
        if reading.error:
            return reading.error if len(readings) == 1 else f"file {number} of {len(readings)}: {reading.error}"
    header = readings[0].header
    if header is None or kind_of(header) is not Kind.MODEL:
        return None
    shards = header.number("split.count") or 1
    if shards > 1 and shards != len(readings):
        return f"one of {shards} files of a model, without the others"
    return why_unusable(header)


def _merged(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Join what is the same file, reached in several ways; the first way decides the id."""
    merged: list[Candidate] = []
    by_identity: defaultdict[object, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        first = candidate.readings[0]
        same_file = by_identity[first.identity or first.path]
        known = next((one for one in same_file if _are_one(one, candidate)), None)
        if known:
            known.found += candidate.found
        else:
            merged.append(candidate)
            same_file.append(candidate)
    return merged


def _are_one(known: Candidate, candidate: Candidate) -> bool:
    """Whether two ways to the same file lead to the same model.

    What a manifest adds to the weights makes another model of them; and a name in our library stays one of its own, for
    it can be deleted.
    """
    new = candidate.found[0]
    titled = next((one for one in known.found if one.title), None)
    if titled is None or not new.title:
        return Source.LIBRARY not in (known.found[0].source, new.source)
    if Source.LIBRARY in (titled.source, new.source) and titled.title != new.title:
        return False
    return (titled.preset, titled.adapters) == (new.preset, new.adapters)


def _projector_for(
    model: Candidate, models: Sequence[Candidate], projectors: Sequence[Candidate], readings: Readings
) -> Reading | None:
    """Choose the projector that its store names, or that lies in its folder and fits by name."""
    named = next((one.mmproj for one in model.found if one.mmproj), None)
    if named:
        return readings.read(named)
    scopes = {one.scope for one in model.found}
    near = [one for one in projectors if one.found[0].scope in scopes]
    if not near or not _may_see(model):
        return None
    neighbours = {one.name.base for one in models if one.found[0].scope in scopes and _may_see(one)}
    fitting = near if len(neighbours) == 1 else _fitting(model.name.base, near, neighbours)
    return min(fitting, key=_projector_order).readings[0] if fitting else None


def _may_see(model: Candidate) -> bool:
    return not model.error and model.header is not None and Capability.COMPLETION in capabilities_of(model.header)


def _fitting(base: str, projectors: Sequence[Candidate], neighbours: set[str]) -> list[Candidate]:
    """Return the projectors whose name begins like this model's, and like no other model's more."""
    by_length: defaultdict[int, list[Candidate]] = defaultdict(list)
    for projector in projectors:
        words = _projector_words(projector)
        fits = {name: _shared_words(words, name) for name in neighbours}
        if fits[base] and fits[base] == max(fits.values()):
            by_length[fits[base]].append(projector)
    return by_length[max(by_length)] if by_length else []


def _projector_words(projector: Candidate) -> list[str]:
    return [word for word in _words(projector.name.base) if word not in _PROJECTOR_WORDS]


def _words(name: str) -> list[str]:
    return re.split(r"[-._]+", name)


def _shared_words(words: Sequence[str], name: str) -> int:
    """Count the words that two names begin with; zero unless one name begins with the whole other."""
    others = _words(name)
    shorter = min(len(words), len(others))
    return shorter if list(words[:shorter]) == others[:shorter] else 0


def _projector_order(projector: Candidate) -> tuple[int, str]:
    kind = (projector.header.quantization if projector.header else None) or ""
    rank = _PREFERRED_PROJECTORS.index(kind) if kind in _PREFERRED_PROJECTORS else len(_PREFERRED_PROJECTORS)
    return rank, str(projector.readings[0].path)


def _entry(model: Candidate, model_id: str) -> ModelEntry:
    header, first = model.header, model.readings[0]
    projector = model.projector if model.projector and model.projector.header else None
    eyes = projector.header if projector else None
    named = next((one for one in model.found if one.title), None)
    quantization = (header.quantization if header else None) or (model.name.quantization or "").upper() or None
    return ModelEntry(
        id=model_id,
        path=first.path,
        files=tuple(reading.path for reading in model.readings),
        size=sum(reading.size for reading in model.readings),
        mmproj=projector.path if projector else None,
        architecture=header.architecture if header else None,
        parameters=sum(reading.header.parameters for reading in model.readings if reading.header) or None,
        quantization=quantization,
        context_length=header.context_length if header else None,
        embedding_length=header.embedding_length if header else None,
        chat_template=header.chat_template if header else None,
        capabilities=capabilities_of(header, eyes) if header and not model.error else frozenset(),
        publisher=next((name for one in model.found if (name := publisher_of(one))), None),
        created=_created(model, named),
        source=_source_of(model),
        error=model.error,
        names=frozenset(name for one in model.found for name in spellings(one, name_of(one), quantization)),
        header=header,
        mmproj_size=projector.size if projector else 0,
        stamps=tuple(_stamp(reading) for reading in model.readings),
        title=named.title if named else None,
        manifest=named.manifest if named else None,
        digest=named.digest if named else None,
        preset=named.preset if named else NO_PRESET,
        adapters=named.adapters if named else (),
    )


def _speech_entry(model: Candidate, model_id: str, sizes: Collection[str]) -> ModelEntry:
    weights = model.readings[0]
    return ModelEntry(
        id=model_id,
        path=weights.path,
        files=(weights.path,),
        size=weights.size,
        architecture="whisper",
        capabilities=frozenset() if model.error else frozenset({Capability.TRANSCRIPTION}),
        publisher=next((name for one in model.found if (name := publisher_of(one))), None),
        created=weights.changed_ns // 1_000_000_000,
        source=_source_of(model),
        error=model.error,
        names=frozenset(name for one in model.found for name in speech.spellings(one, sizes)),
        format="CTranslate2",
    )


def _created(model: Candidate, named: Found | None) -> int:
    """When the model came to be: when its name was given, or its file changed."""
    if named and named.manifest:
        with suppress(OSError):
            return int(named.manifest.stat().st_mtime)
    return model.readings[0].changed_ns // 1_000_000_000


def _stamp(reading: Reading) -> Stamp:
    return Stamp(reading.size, reading.changed_ns, reading.identity[1] if reading.identity else 0)


def _source_of(model: Candidate) -> Source:
    """Return where it was found first; a demo model stays one when a configured folder has it too."""
    sources = [one.source for one in model.found]
    return Source.DEMO if Source.DEMO in sources else sources[0]
