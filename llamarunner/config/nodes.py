"""YAML as a tree that knows its lines. Also reads JSON, which is nearly YAML, for the lines alone.

The types are those of YAML 1.2's core schema, so that the same words mean the same in both formats: `on` is a
string, `12:30` is no number, a date is a string. Anchors are refused: the file has the shape of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from llamarunner.config.document import number
from llamarunner.config.mistakes import NodePath

NULL, BOOL, INT, FLOAT, STR = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))
MAP, SEQ = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"

MAX_DIGITS = 400


class _CoreLoader(yaml.SafeLoader):
    """A loader with the scalar types of YAML 1.2 and without anchors."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML fills it by class methods

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(None, None, "anchors and aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    (NULL, r"~|null|Null|NULL|", [*"~nN", ""]),
    (BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        FLOAT,
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _CoreLoader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


@dataclass(slots=True)
class Tree:
    """A document's value, the line of each node, and the keys that stand twice in one object."""

    value: Any = None
    lines: dict[NodePath, int] = field(default_factory=dict)
    repeated: list[NodePath] = field(default_factory=list)


def read(text: str) -> Tree:
    """Read one document; raise yaml.YAMLError, or RecursionError when it is nested without end."""
    tree = Tree()
    root = yaml.compose(text, _CoreLoader)
    if root is not None:
        tree.value = _value(root, (), tree)
    return tree


def _value(node: yaml.Node, path: NodePath, tree: Tree) -> Any:
    tree.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.tag == MAP:
        return dict(_entries(node, path, tree))
    if isinstance(node, yaml.SequenceNode) and node.tag == SEQ:
        return [_value(item, (*path, index), tree) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    raise _unsupported(node)


def _entries(node: yaml.MappingNode, path: NodePath, tree: Tree) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(None, None, "a key must be plain text", key_node.start_mark)
        key: str = key_node.value
        if key in seen:
            tree.repeated.append((*path, key))
        seen.add(key)
        tree.lines[(*path, key)] = key_node.start_mark.line + 1
        yield key, _value(value_node, (*path, key), tree)


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.tag == STR:
        return text
    if node.tag == NULL:
        return None
    if node.tag == BOOL:
        return text.lower() == "true"
    try:
        if len(text) > MAX_DIGITS:
            raise ValueError
        if node.tag == INT:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if node.tag == FLOAT:
            return number(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except ValueError:  # `!!int two`, or a number of thousands of digits
        raise yaml.MarkedYAMLError(None, None, "this is not a number, or a very long one", node.start_mark) from None
    raise _unsupported(node)


def _unsupported(node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, f"the tag {node.tag} is not supported", node.start_mark)
