"""Whether a call's arguments are what a tool takes, as far as that can be told at once; pure.

A schema is its server's, who may have written one whose check takes for ever (patterns, references in circles). So
only its surface is checked: which arguments there must be, which there may be, and of what type. The server checks
the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.toolbox.contract import Tool

TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
LENGTH = 300


def complaint(tool: Tool, arguments: Mapping[str, object]) -> str | None:
    """Say what is wrong with the arguments, for the model; None if nothing is seen."""
    from jsonschema import Draft202012Validator

    error = next(Draft202012Validator(_surface(tool.parameters)).iter_errors(dict(arguments)), None)
    if error is None:
        return None
    place = f"'{error.path[0]}': " if error.path else ""
    return f"{place}{error.message}"[:LENGTH]


def _surface(schema: Mapping[str, object]) -> dict[str, object]:
    properties, required = schema.get("properties"), schema.get("required")
    known = properties if isinstance(properties, Mapping) else {}
    surface: dict[str, object] = {
        "properties": {name: _types(inner) for name, inner in known.items()},
        "required": [name for name in required if isinstance(name, str)] if isinstance(required, list) else [],
    }
    if schema.get("additionalProperties") is False and "patternProperties" not in schema:
        surface["additionalProperties"] = False
    return surface


def _types(schema: object) -> dict[str, object]:
    """The part of an argument's schema that says of which type it is, or which of some values."""
    if not isinstance(schema, Mapping):
        return {}
    told = schema.get("type")
    types = [told] if isinstance(told, str) else told
    kept: dict[str, object] = {}
    if isinstance(types, list) and types and all(isinstance(one, str) and one in TYPES for one in types):
        kept["type"] = types
    if isinstance(schema.get("enum"), list):
        kept["enum"] = schema["enum"]
    return kept
