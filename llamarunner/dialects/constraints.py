"""Grammars and JSON Schemas, kept to a size that llama.cpp survives.

It parses them by recursion and expands them before the first token: a hundred thousand brackets overflow its stack and
take down everybody who shares the model, and a huge enumeration keeps it busy for minutes. A repetition of at least
five and at most two never ends, and eats all memory meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from llamarunner.errors import InvalidRequest

MAX_GRAMMAR = 64 * 1024
MAX_GRAMMAR_DEPTH = 200
MAX_SCHEMA_NODES = 5_000
_BOUNDS = (("minItems", "maxItems"), ("minLength", "maxLength"), ("minimum", "maximum"))
_REPEATED = re.compile(r"\{\s*(\d{1,18})\s*,\s*(\d{1,18})\s*\}")  # in grammars and in regular expressions


def check_constraints(document: Mapping[str, object]) -> None:
    """Raise InvalidRequest, naming the field, for what is too large, too deep or contradictory."""
    grammar = document.get("grammar")
    if isinstance(grammar, str) and (len(grammar) > MAX_GRAMMAR or _depth(grammar) > MAX_GRAMMAR_DEPTH):
        raise InvalidRequest(
            f"'grammar' must have at most {MAX_GRAMMAR} characters and {MAX_GRAMMAR_DEPTH} levels.", param="grammar"
        )
    if isinstance(grammar, str) and (fault := _empty_repetition(grammar)):
        raise InvalidRequest(f"'grammar' repeats {fault}, which no text can meet.", param="grammar")
    for field in ("json_schema", "response_format", "text", "tools"):
        value = document.get(field)
        if value is not None:
            _check_schema(field, value)


def _check_schema(field: str, schema: object) -> None:
    for count, node in enumerate(_nodes(schema), 1):
        if count > MAX_SCHEMA_NODES:
            raise InvalidRequest(f"'{field}' must have at most {MAX_SCHEMA_NODES} values.", param=field)
        if isinstance(node, dict) and (fault := _contradiction(node)):
            raise InvalidRequest(f"'{field}' has a schema with {fault}, which nothing can meet.", param=field)


def _contradiction(schema: Mapping[str, object]) -> str | None:
    """Bounds of which the lower is above the upper one, if there are such."""
    for lower, upper in _BOUNDS:
        least, most = schema.get(lower), schema.get(upper)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            return f"{lower} {least} and {upper} {most}"
    pattern = schema.get("pattern")
    fault = _empty_repetition(pattern) if isinstance(pattern, str) else None
    return f"the repetition {fault}" if fault else None


def _empty_repetition(text: str) -> str | None:
    return next((found[0] for found in _REPEATED.finditer(text) if int(found[1]) > int(found[2])), None)


def _depth(grammar: str) -> int:
    """How deep brackets of a grammar go, at most; those in literals count too, which errs on the safe side."""
    depth = deepest = 0
    for character in grammar:
        if character == "(":
            depth += 1
            deepest = max(deepest, depth)
        elif character == ")":
            depth = max(0, depth - 1)
    return deepest


def _nodes(value: object) -> Iterator[object]:
    """Walk all values of a document whose depth the parser has bounded."""
    yield value
    if isinstance(value, dict):
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)
