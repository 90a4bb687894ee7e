"""Whatever a settings file holds, it loads, or every problem is a line that helps (F-49)."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llamarunner.config import Loaded, Settings, load, schema
from llamarunner.config.mistakes import NodePath, json_path
from llamarunner.errors import ConfigError

EXAMPLE = Path(__file__).resolve().parent.parent / "config" / "examples" / "everything.yaml"
EVERYTHING: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text().replace("${LLAMARUNNER_KEY}", "k"))
ENVIRON = {"LLAMARUNNER_KEY": "k"}
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _paths(node: Any, path: NodePath = ()) -> Iterator[NodePath]:
    yield path
    if isinstance(node, dict):
        for key, item in node.items():
            yield from _paths(item, (*path, key))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _paths(item, (*path, index))


PATHS = list(_paths(EVERYTHING))[1:]


def _changed(path: NodePath, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(EVERYTHING)
    node: Any = document
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return document


def _try(path: Path) -> Loaded | None:
    """Load a file; if that fails, check that each problem is one line that names the file."""
    try:
        return load(path, environ=ENVIRON)
    except ConfigError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.startswith(f"{path}:")
        assert "\n" not in problem
        assert problem.encode()
        assert len(problem) > len(f"{path}: ")
    return None


TEXT = EXAMPLE.read_text()
AS_JSON = json.dumps(EVERYTHING, indent=1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@FUZZ
@given(at=st.integers(0, len(TEXT)), cut=st.integers(0, 20), put=st.text(max_size=10), name=st.sampled_from("jy"))
def test_a_file_with_some_characters_changed(tmp_path: Path, at: int, cut: int, put: str, name: str) -> None:
    path, text = (tmp_path / "c.json", AS_JSON) if name == "j" else (tmp_path / "c.yaml", TEXT)
    path.write_bytes((text[:at] + put + text[at + cut :]).encode("utf-8", "surrogatepass"))
    _try(path)


@FUZZ
@given(st.binary(max_size=200))
def test_a_file_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    for name in ("c.json", "c.yaml"):
        path = tmp_path / name
        path.write_bytes(content)
        _try(path)


@FUZZ
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_a_document_with_one_value_changed(tmp_path: Path, path: NodePath, value: Any) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(_changed(path, value)))
    _try(file)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_a_value_of_a_foreign_kind_is_told_at_its_path(tmp_path: Path, path: NodePath) -> None:
    """One hundred settings and more, each in turn an object where it is none, or the other way round."""
    file = tmp_path / "c.json"
    here: Any = EVERYTHING
    for part in path:
        here = here[part]
    file.write_text(json.dumps(_changed(path, 17.5 if isinstance(here, dict) else {"a": 1})))
    if path[-2:-1] == ("chat_template_kwargs",):
        assert _try(file) is not None
        return
    with pytest.raises(ConfigError) as caught:
        load(file, environ=ENVIRON)
    assert all(json_path(path) in problem for problem in caught.value.problems)


SCALARS = (None, True, 0, 1, -1, 0.5, 2.5, 10**6, 10**12, -(10**30), "", "a", "a=b", "auto", "on", "none", "x" * 600)
CONTAINERS: tuple[Any, ...] = ([], ["a"], [1], [""], ["a"] * 200, {}, {"a": 1}, {"a": "b"}, {"path": "x"}, {"": {}})


@FUZZ
@given(path=st.sampled_from(PATHS), value=st.sampled_from(SCALARS + CONTAINERS))
def test_schema_and_models_agree(path: NodePath, value: Any) -> None:
    document = _changed(path, value)
    by_schema = Draft202012Validator(schema()).is_valid(document)
    try:
        Settings.model_validate_json(json.dumps(document), strict=True)
        by_models = True
    except ValueError:
        by_models = False
    assert by_models == by_schema
