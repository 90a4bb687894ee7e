"""Find the settings file, read it, check it, and freeze it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llamarunner.config import document as documents
from llamarunner.config.checks import contradictions, unfit
from llamarunner.config.document import Document
from llamarunner.config.environment import Expansion, overridden
from llamarunner.config.explain import against_models, against_schema
from llamarunner.config.mistakes import Mistake, NodePath, prefixes, render
from llamarunner.config.settings import Settings
from llamarunner.errors import ConfigError

FILE_NAMES = ("config.json", "config.yaml", "config.yml")
PATH_VARIABLE = "LLAMARUNNER_CONFIG"
OUR_WORDS = re.compile(rb'llamarunner|\b(proxies|supervisor|catalog)"?\s*:', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and the file they came from, None for the built-in defaults.

    `passed_over` are files of the right name in the working directory that belong to another program.
    """

    settings: Settings
    source: Path | None = None
    passed_over: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The settings file to read, if there is one, and the ones that only look like it."""

    source: Path | None
    passed_over: tuple[Path, ...] = ()


def find(
    explicit: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user_folder: Path | None = None,
) -> Found:
    """Find the settings file: `--config`, `$LLAMARUNNER_CONFIG`, the working directory, the user's config folder.

    The working directory may hold the `config.json` of some other program. There a file counts only if its `$schema`
    names LlamaRunner, or if it has no `$schema` and most of its top-level keys are ours; a malformed one, if a word
    stands in it that others hardly use. A file that is named must exist; ConfigError is raised if it does not.
    """
    environ = os.environ if environ is None else environ
    if named := explicit or _named_by(environ):
        if not os.path.exists(named):  # which never raises, other than pathlib's
            by = "--config" if explicit else f"${PATH_VARIABLE}"
            raise ConfigError((f"{named}: there is no such file, and {by} names it",))
        return Found(named)
    here = list(_present(folder or Path.cwd()))
    ours = [path for path in here if _is_ours(path)]
    passed_over = tuple(path for path in here if path not in ours)
    personal = _present(user_folder or _user_folder())
    return Found(next(iter(ours), None) or next(personal, None), passed_over)


def _named_by(environ: Mapping[str, str]) -> Path | None:
    named = environ.get(PATH_VARIABLE)
    return Path(os.path.expanduser(named)) if named else None


def _present(folder: Path) -> Iterator[Path]:
    yield from (path for name in FILE_NAMES if (path := folder / name).is_file())


def _user_folder() -> Path:
    import platformdirs

    return platformdirs.user_config_path("llamarunner", appauthor=False)


def _is_ours(path: Path) -> bool:
    try:
        value = documents.read(path).value
    except ConfigError:
        return _names_us(path)
    if not isinstance(value, dict):
        return False
    if "$schema" in value:
        return "llamarunner" in str(value["$schema"]).lower()
    return 2 * len(Settings.model_fields.keys() & value.keys()) > len(value)


def _names_us(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return OUR_WORDS.search(file.read(documents.LARGEST_FILE)) is not None
    except OSError:
        return True  # what the owner keeps from us should be told, not ignored


def load(
    explicit: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user_folder: Path | None = None,
) -> Loaded:
    """Find and read the settings; raise ConfigError with every mistake at once.

    The arguments stand for `--config`, the environment, the working directory and the user's config folder.
    """
    environ = os.environ if environ is None else environ
    found = find(explicit, environ=environ, folder=folder, user_folder=user_folder)
    document = documents.read(found.source) if found.source else Document()
    return Loaded(_settings(document, environ), found.source, found.passed_over)


def _settings(document: Document, environ: Mapping[str, str]) -> Settings:
    expansion = Expansion(environ)
    value, origins = overridden(expansion.expand(document.value), environ)
    useless = list(unfit(value))
    told = [*document.repeated, *expansion.mistakes, *useless]
    told += _mistakes(_without(value, useless), document.path, {mistake.path for mistake in told})
    if told:
        raise ConfigError(render(told, document.places() | origins))
    return _validated(value, document.path)


def _mistakes(value: Any, path: Path | None, wrong: set[NodePath]) -> list[Mistake]:
    """Return every mistake; settings that exclude each other are looked for among those that are right.

    `wrong` are the nodes of which a mistake is known already.
    """
    told: list[Mistake] = []
    try:
        sound = _validated(value, path)
    except ValidationError as error:
        told = against_schema(value)
        told += [m for m in against_models(error, value) if not _touches(m.path, {other.path for other in told})]
        try:
            sound = _validated(_without(value, told), path)
        except ValidationError:
            return told
    wrong = wrong | {m.path for m in told}
    return told + [m for m in contradictions(sound) if not any(_touches(p, wrong) for p in (m.path, *m.concerns))]


def _validated(value: Any, path: Path | None) -> Settings:
    """Freeze a document; strictly, so that text is no number, as in the schema."""
    context = {"folder": path.parent.absolute() if path else None}
    return Settings.model_validate_json(json.dumps(value), strict=True, context=context)


def _touches(path: NodePath, others: set[NodePath]) -> bool:
    """Tell whether one of the others is this node, above it or below it."""
    return any(above in others for above in prefixes(path)) or any(other[: len(path)] == path for other in others)


def _without(value: Any, mistakes: Iterable[Mistake]) -> Any:
    """Return the document without the keys that hold mistakes, so that the rest can be checked further."""
    rest = deepcopy(value)
    for mistake in mistakes:
        path = mistake.path
        while path and isinstance(path[-1], int):  # an item takes its whole list with it: the others keep their places
            path = path[:-1]
        if not path:
            return {}
        _drop(rest, path)
    return rest


def _drop(node: Any, path: NodePath) -> None:
    """Remove a node; one that is not there, such as a missing key, is no matter."""
    for part in path[:-1]:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return
    if isinstance(node, dict):
        node.pop(path[-1], None)


def effective(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values, secrets masked; of a model's settings, those that someone has set."""
    told: dict[str, Any] = settings.model_dump(mode="json")
    told["defaults"] = settings.defaults.model_dump(mode="json", exclude_unset=True)
    told["models"] = {key: part.model_dump(mode="json", exclude_unset=True) for key, part in settings.models.items()}
    speech = settings.audio.models.items()
    told["audio"]["models"] = {key: part.model_dump(mode="json", exclude_unset=True) for key, part in speech}
    return told


def bundled(name: str) -> Path:
    """Return the folder `models` or `config` that comes with LlamaRunner, installed or in the source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_data" / name
    return installed if installed.exists() else package.parent / name
