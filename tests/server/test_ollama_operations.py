"""The description of Ollama's paths: all of them, and what was recorded of them is as described."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llamarunner.server import listener, ollama_operations, openapi

GOLDEN = Path(__file__).parents[1] / "golden"
DOCUMENT: Any = json.loads(openapi._rendered("ollama", locked=False))


def recorded() -> list[tuple[str, str, str, str]]:
    """Of each transcript of a path of Ollama's: its name, the path, the status and the lines."""
    told = []
    for file in sorted([*GOLDEN.glob("ollama-*.http"), *GOLDEN.glob("library/*.http")]):
        asked, _, answer = file.read_text().partition("\n====\n")
        head, _, body = answer.partition("\n\n")
        method, path, _ = asked.split(" ", 2)
        path = "/api/blobs/{digest}" if path.startswith("/api/blobs/") else path
        if path.startswith("/api/") and method.lower() in DOCUMENT["paths"].get(path, {}) and body.startswith("{"):
            told.append((f"{method.lower()} {path}", file.stem, head.split()[1], body.removesuffix("\n\n(the end)\n")))
    return told


def test_every_path_is_described() -> None:
    routes = {key: handler for key, handler in listener._routes("ollama").items() if key[1].startswith("/api/")}
    both = {key for key in routes if key[0] == "HEAD" and ("GET", key[1]) in routes}
    told = {(one.method, one.path): one.handler for one in ollama_operations.OPERATIONS}
    assert told == {key: handler for key, handler in routes.items() if key not in both}
    elsewhere = json.loads(openapi._rendered("lmstudio", locked=False))["paths"]
    assert not [path for _, path in told if path in elsewhere]


@pytest.mark.parametrize(("route", "name", "status", "body"), recorded(), ids=[one[1] for one in recorded()])
def test_what_was_recorded_is_as_described(route: str, name: str, status: str, body: str) -> None:
    method, path = route.split()
    responses = DOCUMENT["paths"][path][method]["responses"]
    described = responses.get(status, responses["default"])["content"]["application/json"]["schema"]
    for line in map(json.loads, body.splitlines()):
        schema = responses["default"]["content"]["application/json"]["schema"] if "error" in line else described
        Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(line)
        kind = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert line.keys() <= kind["properties"].keys(), name


def test_all_that_answers_was_recorded() -> None:
    answered = {route for route, _, status, _ in recorded() if status.startswith("2")}
    empty = {"post /api/copy", "delete /api/delete", "head /api/blobs/{digest}", "post /api/blobs/{digest}"}
    wanted = {f"{one.method.lower()} {one.path}" for one in ollama_operations.OPERATIONS if one.status is not None}
    assert answered == wanted - empty
