"""Models and instances as LM Studio tells them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from llamarunner.catalog import Capability, ModelEntry, Source
from llamarunner.config import ModelSettings
from llamarunner.dialects.lmstudio import described
from llamarunner.dialects.lmstudio.managing import LoadConfig, without_nothing
from llamarunner.gguf import Header

CHAT = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.TOOLS, Capability.THINKING})


def entry(**changes: object) -> ModelEntry:
    plain = ModelEntry(
        "qwen3-30b-a3b",
        Path("/models/secret.gguf"),
        size=18_000,
        architecture="qwen3moe",
        quantization="Q4_K_M",
        context_length=40_960,
        capabilities=CHAT,
        publisher="qwen",
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def header(**metadata: object) -> Header:
    return Header(3, {key.replace("__", "."): value for key, value in metadata.items()}, 1, 1, "Q4_K")  # type: ignore[misc]


def test_llm_of_v1_has_all_keys_in_order() -> None:
    labels = {"general__name": "Qwen3 30B", "general__size_label": "30B-A3B", "general__architecture": "qwen3moe"}
    one = entry(header=header(**labels, qwen3moe__expert_used_count=8))
    told = described.model(one)
    config = described.config(one, ModelSettings(batch_size=512), context_length=4096, slots=4)
    assert json.dumps(described.v1_model(told, [described.Instance("qwen3-30b-a3b:2", config)])) == (
        '{"type": "llm", "publisher": "qwen", "key": "qwen3-30b-a3b", "display_name": "Qwen3 30B", '
        '"architecture": "qwen3moe", "quantization": {"name": "Q4_K_M", "bits_per_weight": 4}, "size_bytes": 18000, '
        '"params_string": "30B-A3B", "loaded_instances": [{"id": "qwen3-30b-a3b:2", "config": {"context_length": 4096, '
        '"eval_batch_size": 512, "parallel": 4, "flash_attention": true, "num_experts": 8, '
        '"offload_kv_cache_to_gpu": true}}], "max_context_length": 40960, "format": "gguf", "capabilities": '
        '{"vision": false, "trained_for_tool_use": true, "reasoning": {"allowed_options": ["off", "on"], '
        '"default": "on"}}, "description": null}'
    )


def test_embedding_model_of_v1_lacks_what_lm_studio_leaves_out() -> None:
    one = entry(capabilities=frozenset({Capability.EMBEDDING}), quantization=None, header=header())
    told = described.model(one)
    document = described.v1_model(told, [])
    assert list(document) == [
        "type",
        "publisher",
        "key",
        "display_name",
        "quantization",
        "size_bytes",
        "params_string",
        "loaded_instances",
        "max_context_length",
        "format",
    ]
    assert (document["type"], document["quantization"], document["params_string"]) == ("embedding", None, None)
    config = described.config(one, ModelSettings(), 512, 4)
    assert described.v1_model(told, [described.Instance("x", config)])["loaded_instances"] == [
        {"id": "x", "config": {"context_length": 512, "parallel": 4}}
    ]
    assert described.v1_load_config(told, config) == LoadConfig(512)


def test_load_config_is_told_in_the_order_of_the_documentation() -> None:
    one = entry()
    config = described.config(one, ModelSettings(flash_attn="off"), 4096, 4)
    assert json.dumps(without_nothing(asdict(described.v1_load_config(described.model(one), config)))) == (
        '{"context_length": 4096, "eval_batch_size": 2048, "flash_attention": false, "offload_kv_cache_to_gpu": true}'
    )


@pytest.mark.parametrize(
    ("rules", "used"),
    [((), 8), (("qwen3moe.expert_used_count=int:4",), 4), (("other.expert_used_count=int:4",), 8)],
    ids=["own", "chosen", "of-another"],
)
def test_experts_are_those_of_the_file_unless_others_were_chosen(rules: tuple[str, ...], used: int) -> None:
    metadata = {"general__architecture": "qwen3moe", "qwen3moe__expert_used_count": 8, "qwen3moe__expert_count": 128}
    mixture = entry(header=header(**metadata))
    config = described.config(mixture, ModelSettings(override_kv=rules, kv_offload=False), 4096, 4)
    assert (config.num_experts, config.offload_kv_cache_to_gpu) == (used, False)
    assert described.experts_rule(mixture, 4) == "qwen3moe.expert_used_count=int:4"
    assert described.experts_rule(entry(header=header()), 4) is None


def test_v0_tells_a_model_and_an_instance_of_it() -> None:
    told = described.model(entry(capabilities=CHAT | {Capability.VISION}))
    assert json.dumps(described.v0_model(told)) == (
        '{"id": "qwen3-30b-a3b", "object": "model", "type": "vlm", "publisher": "qwen", "arch": "qwen3moe", '
        '"compatibility_type": "gguf", "quantization": "Q4_K_M", "state": "not-loaded", "max_context_length": 40960, '
        '"capabilities": ["tool_use"]}'
    )
    loaded = described.v0_model(told, "qwen3-30b-a3b:2", "loaded", 4096)
    assert (loaded["id"], loaded["state"], loaded["loaded_context_length"]) == ("qwen3-30b-a3b:2", "loaded", 4096)


@pytest.mark.parametrize(
    ("capabilities", "v1", "v0"),
    [
        ({Capability.CHAT}, "llm", "llm"),
        ({Capability.COMPLETION, Capability.VISION}, "llm", "vlm"),
        ({Capability.CHAT, Capability.EMBEDDING}, "llm", "llm"),
        ({Capability.RERANK}, "embedding", "embeddings"),
    ],
    ids=["chat", "vision", "both", "rerank"],
)
def test_kinds(capabilities: set[Capability], v1: str, v0: str) -> None:
    told = described.model(entry(capabilities=frozenset(capabilities)))
    assert (told.type, described.v0_model(told)["type"]) == (v1, v0)
    assert "capabilities" not in described.v0_model(told)


@pytest.mark.parametrize(
    ("name", "bits"), [("Q4_K_M", 4), ("iq2_xxs", 2), ("BF16", 16), ("MXFP4_MOE", 4), ("odd", None)]
)
def test_bits_are_read_from_the_quantization(name: str, bits: int | None) -> None:
    assert described.model(entry(quantization=name)).quantization == described.Quantization(name.upper(), bits)


@pytest.mark.parametrize(
    ("label", "count", "said"),
    [
        ("8x7b", None, "8x7B"),
        ("large", 7_000_000_000, "7B"),
        (None, 3_212_749_888, "3.2B"),
        (None, 137_000_000, "137M"),
        (None, None, None),
    ],
)
def test_params_are_the_label_or_the_count(label: str | None, count: int | None, said: str | None) -> None:
    one = entry(parameters=count, header=header(general__size_label=label) if label else None)
    assert described.model(one).params == said


def test_publisher_is_by_place_or_file_or_nobody() -> None:
    organization = header(general__organization="Qwen")
    assert described.publisher(entry()) == "qwen"
    assert described.publisher(entry(publisher=None, header=organization)) == "Qwen"
    assert described.publisher(entry(publisher=None)) == described.NOBODY
    assert described.publisher(entry(publisher=None, source=Source.DEMO)) == described.OURS


def test_speech_and_broken_models_are_not_told() -> None:
    assert described.is_told(entry())
    assert not described.is_told(entry(capabilities=frozenset({Capability.TRANSCRIPTION})))
    assert not described.is_told(entry(error="truncated"))
