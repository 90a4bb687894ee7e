"""What the wrapper API's bodies mean, and how its answers and models are told."""

from __future__ import annotations

from typing import Any

import pytest

from llamarunner.dialects.lmstudio import wrapper
from llamarunner.dialects.lmstudio.errors import InvalidValue, NoModelNamed
from llamarunner.dialects.lmstudio.wrapper import Listed, ToolsRequest, VisionRequest
from llamarunner.errors import BackendFailed

Json = dict[str, Any]
NUMBER = {"type": "number"}


def model(key: str, *instances: str, vision: bool = False, kind: str = "llm") -> Json:
    return {
        "type": kind,
        "key": key,
        "loaded_instances": [{"id": one, "config": {"context_length": 8}} for one in instances],
        "capabilities": {"vision": vision},
    }


def listed(*models: Json) -> list[Listed]:
    found = wrapper.read_v1({"models": list(models)})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, {"temperature": 0.7, "max_tokens": 512}),
        ({"temperature": None, "max_tokens": 1}, {"temperature": 0.7, "max_tokens": 1}),
        ({"max_completion_tokens": 2}, {"temperature": 0.7, "max_completion_tokens": 2}),
        ({"temperature": 0, "max_tokens": -1, "seed": 3}, {"temperature": 0, "max_tokens": -1, "seed": 3}),
    ],
    ids=["none", "null", "another name", "all"],
)
def test_defaults_are_for_what_is_absent(given: Json, meant: Json) -> None:
    assert wrapper.with_defaults(given) == meant


def test_an_image_becomes_a_part_of_a_chat() -> None:
    asked = VisionRequest(prompt="What?", image_path="/a.png", max_tokens=9)
    assert wrapper.vision_document(asked, "data:image/png;base64,aGk=") == {
        "temperature": 0.7,
        "max_tokens": 9,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                ],
            }
        ],
    }


def test_a_short_tool_becomes_a_function() -> None:
    asked = ToolsRequest.model_validate(
        {
            "prompt": "5 + 10",
            "tools": [{"name": "add", "description": "sums", "parameters": {"a": NUMBER, "b": NUMBER}}],
        }
    )
    schema = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
    assert wrapper.tools_document(asked) == {
        "temperature": 0.7,
        "max_tokens": 512,
        "messages": [{"role": "user", "content": "5 + 10"}],
        "tools": [{"type": "function", "function": {"name": "add", "description": "sums", "parameters": schema}}],
    }


SCHEMAS: dict[str, tuple[Json, Json]] = {
    "nothing": ({}, {"type": "object", "properties": {}, "required": []}),
    "one with a default": (
        {"a": {"type": "integer", "default": 1}},
        {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}, "required": []},
    ),
    "one that is optional": (
        {"a": {"type": "string", "required": False}, "b": {"type": "boolean", "required": True}},
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}, "required": ["b"]},
    ),
    "an object with fields that it needs": (
        {"a": {"type": "object", "properties": {"x": NUMBER}, "required": ["x"]}},
        {
            "type": "object",
            "properties": {"a": {"type": "object", "properties": {"x": NUMBER}, "required": ["x"]}},
            "required": ["a"],
        },
    ),
    "an argument named type": (
        {"type": {"type": "string"}, "properties": NUMBER},
        {
            "type": "object",
            "properties": {"type": {"type": "string"}, "properties": NUMBER},
            "required": ["type", "properties"],
        },
    ),
    "a schema": ({"type": "object", "properties": {"a": NUMBER}}, {"type": "object", "properties": {"a": NUMBER}}),
    "an empty schema": ({"type": "object"}, {"type": "object"}),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_parameters_become_a_schema(case: str) -> None:
    short, schema = SCHEMAS[case]
    assert wrapper.schema_of(short, "p") == schema


@pytest.mark.parametrize(
    ("parameters", "param"),
    [({"a": "number"}, "p.a"), ({"a": {"type": "numbr"}}, "p.a.type"), ({"type": "string"}, "p")],
    ids=["a text", "no type", "a schema of a text"],
)
def test_parameters_that_mean_nothing_are_named(parameters: Json, param: str) -> None:
    with pytest.raises(InvalidValue, match=f"'{param}'"):
        wrapper.schema_of(parameters, "p")


def test_the_text_is_put_on_top() -> None:
    whole = {"choices": [{"text": "a"}], "usage": {"total_tokens": 1}}
    assert wrapper.with_text(whole) == {"text": "a", **whole}
    for choice in ({"message": {"content": "a"}}, {"delta": {"content": "a"}}):
        assert wrapper.with_text({"choices": [choice]})["text"] == "a"
    for empty in ([], [{"message": {"content": None}}], ["nonsense"]):
        assert wrapper.with_text({"choices": empty})["text"] == ""
    for broken in ({}, {"choices": None}):
        with pytest.raises(BackendFailed):
            wrapper.with_text(broken)


def test_calls_are_put_on_top_with_what_the_model_wrote() -> None:
    def call(arguments: object) -> Json:
        return {"id": "1", "function": {"name": "f", "arguments": arguments}}

    calls = [call('{"a":1}'), call("{broken"), call("[1]"), call({"a": 2}), "nonsense"]
    told = wrapper.with_calls({"choices": [{"message": {"content": "so", "tool_calls": calls}}]})
    assert [one["arguments"] for one in told["tool_calls"]] == [{"a": 1}, "{broken", "[1]", {"a": 2}]
    assert told["text"] == "so"
    assert wrapper.with_calls({"choices": [{"message": {"content": "so"}}]})["tool_calls"] == []


def test_models_of_either_version_are_read_and_nonsense_is_passed_over() -> None:
    found = listed(model("a", "a", "a:2"), {"key": 3}, {"key": "b", "loaded_instances": "x", "size_bytes": "1"})
    assert [(one.model.model_key, one.model.loaded) for one in found] == [("a", True), ("b", False)]
    assert [(one.identifier, one.context_length) for one in found[0].loaded()] == [("a", 8), ("a:2", 8)]
    assert found[1].model.size_bytes is None
    older = wrapper.read_v0({"data": [{"id": "a", "type": "embeddings", "state": "loaded"}, {"id": "b", "state": 1}]})
    assert older is not None
    assert [(one.model.type, one.model.loaded) for one in older] == [("embedding", True), ("llm", False)]
    assert wrapper.read_v1({"error": "x"}) is wrapper.read_v0([]) is wrapper.read_v1({"models": {}}) is None


def test_a_model_is_found_by_its_instance_or_its_key() -> None:
    models = listed(model("Maker/A", "Maker/A", "Maker/A:2"), model("b"))
    second, by_key = wrapper.named(models, "Maker/A:2"), wrapper.named(models, "maker/a")
    assert second is not None
    assert [one.identifier for one in second.loaded()] == ["Maker/A:2"]
    assert by_key == models[0]
    assert wrapper.named(models, "maker/a:2") is None


CHOICES: dict[str, tuple[list[Json], bool, str]] = {
    "the only one": ([model("a"), model("e", "e", kind="embedding")], False, "a"),
    "the only one loaded": ([model("a"), model("b", "b:2")], False, "b:2"),
    "the only one that sees nothing": ([model("a"), model("v", vision=True)], False, "a"),
    "the only one that sees": ([model("a", "a"), model("v", vision=True)], True, "v"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_a_model_is_chosen_where_one_alone_can_be_meant(case: str) -> None:
    models, vision, name = CHOICES[case]
    assert wrapper.chosen(listed(*models), vision=vision) == name


@pytest.mark.parametrize("vision", [True, False])
def test_where_several_can_be_meant_none_is_chosen(vision: bool) -> None:
    several = listed(*(model(key, key, vision=vision) for key in ("a", "b")))
    for models, words in ((several, "Multiple models are loaded"), ([], "No models loaded")):
        with pytest.raises(NoModelNamed) as caught:
            wrapper.chosen(models, vision=vision)
        assert caught.value.said.startswith(words)
