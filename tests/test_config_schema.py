"""The JSON Schema in `config/`, and the files that come with it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from llamarunner.config import bundled, effective, load, schema, schema_text
from llamarunner.config.schema import alternatives

ROOT = Path(__file__).resolve().parent.parent
NUMBERS, LOWEST = {"integer", "number"}, {"minimum", "exclusiveMinimum"}
EXAMPLES = sorted((ROOT / "config" / "examples").iterdir())


def test_the_schema_in_config_is_the_one_of_the_code() -> None:
    kept = bundled("config") / "llamarunner.schema.json"
    refresh = "llamarunner check --print-schema > config/llamarunner.schema.json"
    assert kept.read_bytes() == schema_text().encode(), f"refresh it with: {refresh}"


def test_the_schema_is_valid_itself() -> None:
    Draft202012Validator.check_schema(schema())


def _fields() -> Iterator[tuple[str, dict[str, Any]]]:
    for group, node in {"Settings": schema(), **schema()["$defs"]}.items():
        for plain in alternatives(node):
            yield from ((f"{group}.{name}", field) for name, field in plain.get("properties", {}).items())


def test_every_setting_has_a_description() -> None:
    bare = [
        name for name, field in _fields() if not any("description" in node for node in (field, *alternatives(field)))
    ]
    assert bare == []


def test_every_number_has_limits() -> None:
    numbers = [(name, node) for name, field in _fields() for node in alternatives(field) if node.get("type") in NUMBERS]
    assert len(numbers) > 40
    assert [name for name, node in numbers if not node.keys() & LOWEST or "maximum" not in node] == []


@pytest.mark.parametrize("path", [ROOT / "config.json", *EXAMPLES], ids=lambda path: path.name)
def test_a_file_that_we_ship_is_right(path: Path) -> None:
    loaded = load(path, environ={"LLAMARUNNER_KEY": "k"})
    assert loaded.source == path
    assert Draft202012Validator(schema()).is_valid(effective(loaded.settings))


@pytest.mark.parametrize("path", [ROOT / "config.json", *EXAMPLES], ids=lambda path: path.name)
def test_a_file_that_we_ship_leads_editors_to_the_schema(path: Path) -> None:
    named = re.search(r'\$schema(?:"\s*:\s*"|=)([^"\s]+)', path.read_text())
    assert named is not None
    assert (path.parent / named[1]).resolve() == (ROOT / "config" / "llamarunner.schema.json")


def test_the_file_of_the_owner_says_the_defaults() -> None:
    nothing = load(environ={}, folder=ROOT / "tests", user_folder=ROOT / "tests")
    assert nothing.source is None
    assert load(ROOT / "config.json", environ={}).settings.proxies == nothing.settings.proxies


def test_one_example_has_every_setting() -> None:
    everything = yaml.safe_load((ROOT / "config" / "examples" / "everything.yaml").read_text())
    missing = []
    for name, field in schema()["properties"].items():
        if name in ("$schema", "models", "defaults"):
            continue
        for group in alternatives(field):
            missing += [f"{name}.{key}" for key in group["properties"] if key not in everything[name]]
    told = {key for part in everything["models"].values() for key in part}
    known = schema()["$defs"]["ModelSettings"]["properties"]
    assert missing + [key for key in known if key not in told | everything["defaults"].keys()] == []


def test_the_example_of_the_specification_loads_as_it_stands(tmp_path: Path) -> None:
    example = {
        "proxies": {
            "lmstudio": {
                "enabled": True,
                "rate_limits": {"requests_per_minute": 200, "concurrent_requests": 20, "file_upload_size_mb": 200},
            }
        }
    }
    (tmp_path / "config.json").write_text(json.dumps(example, indent=2))
    loaded = load(environ={}, folder=tmp_path, user_folder=tmp_path / "none")
    limits = loaded.settings.proxies.lmstudio.rate_limits
    assert loaded.source == tmp_path / "config.json"
    assert (limits.requests_per_minute, limits.concurrent_requests, limits.file_upload_size_mb) == (200, 20, 200)
    assert limits.streaming_connections == 5


def test_what_is_bundled_is_found_in_the_tree() -> None:
    assert bundled("config") == ROOT / "config"
    assert bundled("models").is_dir()
