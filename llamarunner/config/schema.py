"""The JSON Schema of the settings, and questions to it: what may stand at a path, and how to say so."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from llamarunner.config.flags import SETTING_OF_FLAG
from llamarunner.config.mistakes import NodePath, json_path
from llamarunner.config.settings import Settings

MANY = 20  # known keys beyond which a list helps nobody

Node = dict[str, Any]


class _Untitled(GenerateJsonSchema):
    """Without a title on every field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@cache
def schema() -> Node:
    """Return the JSON Schema of a settings file; do not change it."""
    generated = Settings.model_json_schema(schema_generator=_Untitled)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | generated


def schema_text() -> str:
    """Write the schema as the bytes of `config/llamarunner.schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def alternatives(node: Any) -> Iterator[Node]:
    """Yield the plain schemas of which a value must fit one, with references followed."""
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        yield from alternatives(schema()["$defs"][node["$ref"].rsplit("/", 1)[1]])
    elif "anyOf" in node:
        for part in node["anyOf"]:
            yield from alternatives(part)
    else:
        yield node


def schemas_at(path: NodePath) -> list[Node]:
    """Return the schemas for what stands at a path; none where nothing is known."""
    found = list(alternatives(schema()))
    for part in path:
        found = [inner for outer in found for inner in alternatives(_child(outer, part))]
    return found


def _child(node: Node, part: str | int) -> Any:
    if isinstance(part, int):
        return node.get("items")
    return node.get("properties", {}).get(part, node.get("additionalProperties"))


def types_at(path: NodePath) -> set[str]:
    """Return the names of the JSON types that may stand at a path; empty where nothing is known."""
    return {node["type"] for node in schemas_at(path) if "type" in node}


def allowed(node: Any) -> str:
    """Say in words what a schema accepts."""
    return _either(alternatives(node))


def allowed_at(path: NodePath) -> str:
    """Say in words what may stand at a path."""
    return _either(schemas_at(path))


def _either(nodes: Iterable[Node]) -> str:
    return " or ".join(dict.fromkeys(_words(node) for node in nodes))


def _words(node: Node) -> str:
    if "enum" in node or "const" in node:
        return " or ".join(json.dumps(value) for value in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "integer":
            return f"an integer{_range(node)}"
        case "number":
            return f"a number{_range(node)}"
        case "string":
            return _string_words(node)
        case "array":
            return f"a list{_length(node)}, each item {allowed(node.get('items'))}"
        case "object":
            return "an object"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    return "any value"


def _range(node: Node) -> str:
    low = f" above {node['exclusiveMinimum']}" if "exclusiveMinimum" in node else ""
    low = low or (f" from {node['minimum']}" if "minimum" in node else "")
    return low + (f" to {node['maximum']}" if "maximum" in node else "")


def _string_words(node: Node) -> str:
    words = "a non-empty string" if node.get("minLength") else "a string"
    if "maxLength" in node:
        words += f" of at most {node['maxLength']} characters"
    if "pattern" in node:
        words += f" that matches {node['pattern']}"
    return words


def _length(node: Node) -> str:
    low, high = node.get("minItems"), node.get("maxItems")
    return f" of {low or 0} to {high} items" if high is not None else ""


def advice_on(key: str, known: list[str]) -> str:
    """Tell what an unknown key was meant to be: a near name here, its home elsewhere, or what there is."""
    plain = key.lstrip("-").replace("-", "_").lower()
    by_flag = SETTING_OF_FLAG.get(f"-{plain}", "")
    near = [name for name in known if name in (plain, by_flag) or name.startswith(f"{plain}_")]
    near = near or difflib.get_close_matches(plain, known, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    homes = [json_path(home) for home in _homes(plain)]
    if homes:
        return f"it belongs at {' or '.join(homes)}"
    if len(known) > MANY:
        return f"{len(known)} keys are known here, among them {', '.join(known[:5])}"
    return f"known keys: {', '.join(known)}"


def _homes(key: str) -> Iterator[NodePath]:
    """Yield where in the settings a key of this name has a meaning."""
    yield from (home for home in _known_paths(schema(), ()) if home[-1] == key)


def _known_paths(node: Any, path: NodePath) -> Iterator[NodePath]:
    for part in alternatives(node):
        for key, child in part.get("properties", {}).items():
            yield (*path, key)
            yield from _known_paths(child, (*path, key))
