"""A settings file as it stands: its text read as JSON or YAML, with the line of every node."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamarunner.config.mistakes import Mistake, NodePath
from llamarunner.errors import ConfigError

YAML_SUFFIXES = frozenset({".yaml", ".yml"})
LARGEST_FILE = 4 * 1024 * 1024
DEEPEST = 32  # levels; our own settings have five, chat_template_kwargs may have some more


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says; an empty one says nothing."""

    value: Any = field(default_factory=dict)
    text: str = ""
    path: Path | None = None
    repeated: tuple[Mistake, ...] = ()

    def places(self) -> dict[NodePath, str]:
        """Tell `file:line` of each node, as far as the text can be read as YAML."""
        if self.path is None:
            return {}
        return {(): str(self.path)} | {node: f"{self.path}:{line}" for node, line in _lines(self.text).items()}


def read(path: Path) -> Document:
    """Read a file: YAML by its suffix, else JSON; raise ConfigError with the position where it cannot be read."""
    text = _text(path)
    try:
        document = _from_yaml(text, path) if path.suffix.lower() in YAML_SUFFIXES else _from_json(text, path)
    except RecursionError:
        raise _too_deep(path) from None
    if too_deep(document.value):
        raise _too_deep(path)
    return document


def number(text: str) -> float:
    """Read a number; one that is whole is an integer, as in JSON Schema, however it is written."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def too_deep(value: Any) -> bool:
    """Tell whether a value is nested deeper than settings can be, so that no recursion over it runs out of stack."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for parent in level
            if isinstance(parent, dict | list)
            for item in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return bool(level)


def _too_deep(path: Path) -> ConfigError:
    return ConfigError((f"{path}: nested too deeply; {DEEPEST} levels are allowed",))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError((f"{path}: cannot be read: {reason}",)) from error
    if len(raw) > LARGEST_FILE:
        raise ConfigError((f"{path}: larger than {LARGEST_FILE} bytes, so it cannot be a settings file",))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{path}:{line}: not UTF-8 text (byte 0x{raw[error.start]:02x})",)) from error


def _from_json(text: str, path: Path) -> Document:
    repeated: list[str] = []

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.extend(key for key in built if keys.count(key) > 1)
        return built

    try:
        value = json.loads(text, object_pairs_hook=build, parse_float=number)
    except json.JSONDecodeError as error:
        why = _json_hint(text, error.pos) or error.msg
        raise ConfigError((f"{path}:{error.lineno}:{error.colno}: not valid JSON: {why}",)) from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise ConfigError((f"{path}: not valid JSON: a number has too many digits",)) from error
    return Document(value, text, path, _repeated_in_json(text, repeated))


def _json_hint(text: str, position: int) -> str | None:
    """Name the mistakes that people make most, where the parser only says what it expected."""
    if text[position : position + 2] in ("//", "/*") or text[position : position + 1] == "#":
        return "JSON has no comments; a .yaml file of the same shape may have them"
    if text[position : position + 1] in ("}", "]") and text[:position].rstrip().endswith(","):
        return "no comma is allowed after the last item"
    if text[position : position + 1] == "'":
        return "text needs double quotes"
    return None


def _repeated_in_json(text: str, keys: list[str]) -> tuple[Mistake, ...]:
    if not keys:
        return ()
    tree = _tree(text)
    paths: list[NodePath] = list(tree.repeated) if tree else [(key,) for key in keys]
    return tuple(Mistake(path, "stands twice in the same object") for path in paths)


def _from_yaml(text: str, path: Path) -> Document:
    import yaml

    from llamarunner.config import nodes

    try:
        tree = nodes.read(text)
    except yaml.YAMLError as error:
        raise ConfigError((f"{path}{_yaml_position(error, text)}: not valid YAML: {_yaml_reason(error)}",)) from error
    repeated = tuple(Mistake(node, "stands twice in the same object") for node in tree.repeated)
    return Document({} if tree.value is None else tree.value, text, path, repeated)


def _yaml_position(error: Any, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f":{mark.line + 1}:{mark.column + 1}"
    position = getattr(error, "position", None)  # a ReaderError counts characters
    return f":{text.count(chr(10), 0, position) + 1}" if isinstance(position, int) else ""


def _yaml_reason(error: Any) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read")


def _lines(text: str) -> dict[NodePath, int]:
    tree = _tree(text)
    return tree.lines if tree else {}


def _tree(text: str) -> Any:
    """Read the text as YAML for its lines; JSON may be indented with tabs, which YAML refuses."""
    import yaml

    from llamarunner.config import nodes

    try:
        return nodes.read(text.replace("\t", " "))
    except (yaml.YAMLError, RecursionError):
        return None
