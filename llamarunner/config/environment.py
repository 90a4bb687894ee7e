"""What the environment says in the settings: `${NAME}` in values, and `LLAMARUNNER__SECTION__KEY` over the file.

`${NAME}` stands for a variable that must be set, `${NAME:-text}` has a default for one that is unset or empty, and
`$${` is a plain `${`. A value that is nothing else may become a number, a truth value, a list or an object, where
the schema wants one; so may the value of `LLAMARUNNER__SECTION__KEY`, which wins over the file. So does
`LMSTUDIO_HOST`, whose name the wrapper API's clients know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llamarunner.config.document import too_deep
from llamarunner.config.mistakes import Mistake, NodePath
from llamarunner.config.schema import types_at

PREFIX = "LLAMARUNNER__"
KNOWN = {"LMSTUDIO_HOST": ("wrapper", "lmstudio_host")}  # names that others gave; ours win over them

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)\}|\$\{")
_BODY = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)

_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)


class _Broken(Exception):
    """A `${…}` that stands for nothing."""


class Expansion:
    """Replaces the references in a document and collects the mistakes in them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.mistakes: list[Mistake] = []

    def expand(self, value: Any, path: NodePath = ()) -> Any:
        """Return the value with its references replaced; one with a mistake stays as it is."""
        if isinstance(value, dict):
            return {key: self.expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*path, index)) for index, item in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) and "${" in value else value

    def _text(self, text: str, path: NodePath) -> Any:
        try:
            expanded = _REFERENCE.sub(self._replacement, text)
        except _Broken as broken:
            self.mistakes.append(Mistake(path, str(broken)))
            return text
        whole = _REFERENCE.fullmatch(text)
        return coerced(expanded, path) if whole and whole["body"] is not None else expanded

    def _replacement(self, reference: re.Match[str]) -> str:
        if reference[0] == "$${":
            return "${"
        body = _BODY.fullmatch(reference["body"] or "")
        if body is None:
            raise _Broken("has a ${…} that names no variable; write $${ for a plain ${")
        name, default = body["name"], body["default"]
        found = self._environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise _Broken(f"needs the environment variable {name}, which is not set; ${{{name}:-…}} gives a default")
        return found


def coerced(text: str, path: NodePath) -> Any:
    """Return a text as the type that the schema wants at this path, if it can be read as one."""
    wanted = types_at(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    kind = next((name for known, name in _TYPE_NAMES if isinstance(value, known)), None)
    fits = kind in wanted or (kind == "integer" and "number" in wanted)
    return value if fits and not too_deep(value) else text


def overridden(value: Any, environ: Mapping[str, str]) -> tuple[Any, dict[NodePath, str]]:
    """Return the document with `LLAMARUNNER__SECTION__KEY` variables put in, and the name of each by its path."""
    origins: dict[NodePath, str] = {}
    for name, place in KNOWN.items():
        if environ.get(name) and isinstance(value, dict):
            value = _with(value, place, environ[name])
            origins[place] = name
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and isinstance(value, dict):
            path = tuple(name[len(PREFIX) :].lower().split("__"))
            value = _with(value, path, coerced(environ[name], path))
            origins[path] = name
    return value, origins


def _with(node: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return a copy of an object with one value put in; what is no object is left alone, for the schema to tell."""
    if not path:
        return value
    if not isinstance(node, dict):
        return node
    return node | {path[0]: _with(node.get(path[0], {}), path[1:], value)}
