"""Grammars and JSON Schemas, kept to a size that llama.cpp survives.

It parses them by recursion and expands them before the first token: a hundred thousand brackets overflow its stack and
take down everybody who shares the model, and a huge enumeration keeps it busy for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llamarunner.errors import InvalidRequest

MAX_GRAMMAR = 64 * 1024
MAX_GRAMMAR_DEPTH = 200
MAX_SCHEMA_NODES = 5_000


def check_constraints(document: Mapping[str, object]) -> None:
    """Raise InvalidRequest, naming the field, for a grammar or a schema that is too large or too deep."""
    grammar = document.get("grammar")
    if isinstance(grammar, str) and (len(grammar) > MAX_GRAMMAR or _depth(grammar) > MAX_GRAMMAR_DEPTH):
        raise InvalidRequest(
            f"'grammar' must have at most {MAX_GRAMMAR} characters and {MAX_GRAMMAR_DEPTH} levels.", param="grammar"
        )
    for field in ("json_schema", "response_format", "text", "tools"):
        value = document.get(field)
        if value is not None and sum(1 for _ in _nodes(value)) > MAX_SCHEMA_NODES:
            raise InvalidRequest(f"'{field}' must have at most {MAX_SCHEMA_NODES} values.", param=field)


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
