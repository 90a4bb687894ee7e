"""What is wrong with a document: every mistake at once, each with its path, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llamarunner.config.mistakes import Mistake, NodePath, shown
from llamarunner.config.schema import advice_on, allowed, allowed_at, schema

if TYPE_CHECKING:
    from pydantic import ValidationError

SchemaError = Any  # jsonschema's ValidationError, whose attributes are all "any or unset" to a type checker


def against_schema(document: Any) -> list[Mistake]:
    """Return all mistakes that the JSON Schema sees."""
    from jsonschema import Draft202012Validator  # 0.1 s, and only for a file that is wrong

    return [mistake for error in Draft202012Validator(schema()).iter_errors(document) for mistake in _told(error)]


def _told(error: SchemaError) -> Iterator[Mistake]:
    path: NodePath = tuple(error.absolute_path)
    if "propertyNames" in error.schema_path:
        words = allowed({"type": "string"} | error.schema)
        yield Mistake((*path, error.instance), f"has a name that is not allowed; allowed: {words}")
        return
    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(error, path)
        case "required":
            for name in error.validator_value:
                if name not in error.instance:
                    yield Mistake((*path, name), f"is missing; allowed: {allowed(error.schema['properties'][name])}")
        case "anyOf" if inner := _inside_the_fitting_branch(error):
            for deeper in inner:
                yield from _told(deeper)
        case _:
            yield Mistake(path, _is_but_allowed(error.instance, path, allowed(error.schema)))


def _unknown_keys(error: SchemaError, path: NodePath) -> Iterator[Mistake]:
    known = list(error.schema.get("properties", {}))
    for key in error.instance:
        if key not in known:
            yield Mistake((*path, key), f"is not a known key; {advice_on(key, known)}")


def _inside_the_fitting_branch(error: SchemaError) -> list[SchemaError]:
    """Return the errors within the alternative that has the value's type; none if no alternative has it."""
    branches: dict[Any, list[SchemaError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    of_an_object = ("additionalProperties", "required")
    for errors in branches.values():
        if all(inner.relative_path or inner.validator in of_an_object for inner in errors):
            return errors
    return []


def _is_but_allowed(value: Any, path: NodePath, words: str) -> str:
    return f"is {shown(value, path)}; allowed: {words}"


def against_models(error: ValidationError, document: Any) -> Iterator[Mistake]:
    """Yield what pydantic found, at the paths of the document and in our words."""
    for detail in error.errors(include_url=False):
        path, value = _node(document, detail["loc"])
        if detail["type"] == "value_error":
            yield Mistake(path, f"is not allowed: {detail['ctx']['error']}")
        else:
            yield Mistake(path, _is_but_allowed(value, path, allowed_at(path)))


def _node(document: Any, location: tuple[str | int, ...]) -> tuple[NodePath, Any]:
    """Follow pydantic's location as far as it names nodes; it ends with names of validators."""
    path: list[str | int] = []
    node = document
    for part in location:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(part)
    return tuple(path), node
