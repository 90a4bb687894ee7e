"""Models, as each API lists them."""

from __future__ import annotations

from pathlib import Path

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.dialects import anthropic, openai

ENTRY = ModelEntry(
    "a/b",
    Path("/models/secret.gguf"),
    size=10,
    context_length=4096,
    capabilities=frozenset({Capability.CHAT, Capability.COMPLETION}),
    created=1_700_000_000,
)


def test_openai_model_has_the_specs_keys_and_no_path() -> None:
    model = openai.model_object(ENTRY, "loaded")
    assert {key: model[key] for key in ("id", "object", "created", "owned_by")} == {
        "id": "a/b",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "llama-runner",
    }
    assert (model["status"], model["context_length"]) == ("loaded", 4096)
    assert model["capabilities"] == ["chat", "completion"]
    assert "secret" not in str(model)


def test_openai_list() -> None:
    assert openai.model_list([{"id": "a"}]) == {"object": "list", "data": [{"id": "a"}]}


def test_anthropic_model_has_a_date_in_utc() -> None:
    assert anthropic.model_object(ENTRY) == {
        "type": "model",
        "id": "a/b",
        "display_name": "a/b",
        "created_at": "2023-11-14T22:13:20Z",
    }


def test_anthropic_list_is_one_page() -> None:
    models: list[dict[str, object]] = [{"id": "a"}, {"id": "b"}]
    assert anthropic.model_list(models) == {"data": models, "has_more": False, "first_id": "a", "last_id": "b"}
    assert anthropic.model_list([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
