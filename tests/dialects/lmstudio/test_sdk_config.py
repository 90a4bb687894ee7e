"""Configurations of LM Studio's SDKs."""

from __future__ import annotations

from typing import Any

import pytest

from llamarunner.config import ModelSettings
from llamarunner.dialects.lmstudio import sdk_config
from llamarunner.errors import InvalidRequest

PREDICTION = "llm.prediction."


def layer(name: str, **values: Any) -> dict[str, Any]:
    fields = [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]
    return {"layerName": name, "config": {"fields": fields}}


def box(value: object, checked: bool = True) -> dict[str, object]:
    return {"checked": checked, "value": value}


def test_the_first_layer_wins() -> None:
    stack = {"layers": [layer("apiOverride", a=1), layer("instance", a=2, b=3), layer("completeModeFormatting", c=4)]}
    assert sdk_config.flattened(stack) == {"a": 1, "b": 3}
    assert sdk_config.written({"a": 1, "b": None}) == {"fields": [{"key": "a", "value": 1}]}


def test_completion_is_a_layer_with_a_template() -> None:
    template = {"llm__prediction__promptTemplate": {}}
    assert sdk_config.completes({"layers": [layer("completeModeFormatting", **template)]})
    assert not sdk_config.completes(
        {"layers": [layer("apiOverride", **template), layer("completeModeFormatting", a=1)]}
    )


@pytest.mark.parametrize(
    ("stack", "param"),
    [
        (None, "layers"),
        ({"layers": {}}, "layers"),
        ({"layers": [1]}, "layers[0].layerName"),
        ({"layers": [{"layerName": "a"}]}, "layers[0].config.fields"),
        ({"layers": [{"layerName": "a", "config": {"fields": [{}]}}]}, "layers[0].config.fields[0].key"),
        ({"layers": [layer("a", **{f"k{n}": n for n in range(1001)})]}, "layers"),
    ],
)
def test_what_is_no_stack(stack: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sdk_config.flattened(stack)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("key", "value", "asked"),
    [
        ("temperature", 0, {"temperature": 0}),
        ("topKSampling", 5.0, {"top_k": 5}),
        ("maxPredictedTokens", box(7), {"max_tokens": 7}),
        ("maxPredictedTokens", box(7, checked=False), {}),
        ("stopStrings", ["a", ""], {"stop": ["a"]}),
        ("topPSampling", box(0.5), {"top_p": 0.5}),
        ("minPSampling", box(0.1), {"min_p": 0.1}),
        ("repeatPenalty", box(1.2), {"repeat_penalty": 1.2}),
        ("seed", box(3), {"seed": 3}),
        ("llama.frequencyPenalty", box(0.2), {"frequency_penalty": 0.2}),
        ("llama.presencePenalty", box(0.3), {"presence_penalty": 0.3}),
        ("llama.xtcProbability", box(0.4), {"xtc_probability": 0.4}),
        ("llama.xtcThreshold", box(0.5), {"xtc_threshold": 0.5}),
        ("llama.locallyTypicalSampling", box(0.6), {"typical_p": 0.6}),
        ("llama.logitBias", [[5, -1]], {"logit_bias": [[5, -1]]}),
        ("llama.mirostatSampling", {"version": 0, "learningRate": 1}, {}),
        (
            "llama.mirostatSampling",
            {"version": 2, "learningRate": 0.1, "targetEntropy": 5},
            {"mirostat": 2, "mirostat_eta": 0.1, "mirostat_tau": 5},
        ),
        ("structured", {"type": "none"}, {}),
        (
            "structured",
            {"type": "json"},
            {"response_format": {"type": "json_object"}, "chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            "structured",
            {"type": "gbnf", "gbnfGrammar": "root ::= x"},
            {"grammar": "root ::= x", "chat_template_kwargs": {"enable_thinking": False}},
        ),
        ("tools", {"type": "none"}, {}),
        ("tools", {"type": "toolArray", "tools": []}, {}),
        ("tools", {"type": "toolArray", "tools": [{"type": "function"}]}, {"tools": [{"type": "function"}]}),
        ("toolChoice", {"type": "generic", "mode": "required"}, {}),
        ("reasoning.enableThinking", False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("reasoning.parsing", {"enabled": False}, {"reasoning_format": "none"}),
        ("reasoning.parsing", {"enabled": True}, {}),
        ("cpuThreads", 4, {}),
    ],
)
def test_what_a_prediction_asks_of_llama_cpp(key: str, value: object, asked: dict[str, object]) -> None:
    assert sdk_config.asked({PREDICTION + key: value}) == asked


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("topKSampling", 1.5),
        ("stopStrings", "a"),
        ("stopStrings", [1]),
        ("seed", box("x")),
        ("llama.logitBias", [[1]]),
        ("structured", {"type": "xml"}),
        ("structured", {"type": "gbnf"}),
        ("tools", {"type": "toolArray", "tools": {}}),
        ("promptTemplate", {"type": "jinja"}),
    ],
)
def test_what_cannot_be_asked_is_named(key: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sdk_config.asked({PREDICTION + key: value})
    assert refused.value.param == PREDICTION + key


def test_a_schema_is_asked_as_openai_has_it_and_thinking_may_be_wanted() -> None:
    config = {
        PREDICTION + "structured": {"type": "json", "jsonSchema": {"type": "object"}},
        PREDICTION + "reasoning.enableThinking": True,
    }
    asked = sdk_config.asked(config)
    schema = {"name": "response", "strict": True, "schema": {"type": "object"}}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert asked["chat_template_kwargs"] == {"enable_thinking": True}


def test_tags_of_thoughts() -> None:
    parsing = {"enabled": True, "startString": "[", "endString": "]"}
    assert sdk_config.tags({PREDICTION + "reasoning.parsing": parsing}) == ("[", "]")
    assert sdk_config.tags({}) == ("<think>", "</think>")
    assert sdk_config.tags({PREDICTION + "structured": {"type": "json"}}) is None


@pytest.mark.parametrize("domain", ["llm", "embedding"])
@pytest.mark.parametrize(
    ("key", "value", "settings"),
    [
        ("contextLength", 512, {"ctx_size": 512}),
        ("numParallelSessions", 3, {"parallel": 3}),
        ("useUnifiedKvCache", False, {"kv_unified": False}),
        ("offloadKVCacheToGpu", False, {"kv_offload": False}),
        ("llama.cpuThreadPoolSize", 2, {"threads": 2}),
        ("llama.evalBatchSize", 64, {"batch_size": 64}),
        ("llama.physicalBatchSize", 32, {"ubatch_size": 32}),
        ("llama.flashAttention", False, {"flash_attn": "off"}),
        ("llama.kCacheQuantizationType", box("q8_0"), {"cache_type_k": "q8_0"}),
        ("llama.vCacheQuantizationType", box("f16", checked=False), {}),
        ("llama.ropeFrequencyBase", box(1e6), {"rope_freq_base": 1e6}),
        ("llama.ropeFrequencyScale", box(0.5), {"rope_freq_scale": 0.5}),
        ("llama.acceleration.offloadRatio", "max", {"n_gpu_layers": "all"}),
        ("llama.acceleration.offloadRatio", "off", {"n_gpu_layers": 0}),
        ("llama.acceleration.offloadRatio", 0, {"n_gpu_layers": 0}),
        ("llama.acceleration.offloadRatio", 1, {"n_gpu_layers": "all"}),
        ("llama.acceleration.offloadRatio", 0.5, {"n_gpu_layers": 16}),
        ("llama.tryMmap", False, {"load_mode": "none"}),
        ("llama.tryMmap", True, {"load_mode": "mmap"}),
        ("llama.keepModelInMemory", True, {"load_mode": "mmap+mlock"}),
        ("numExperts", 2, {}),
    ],
)
def test_what_a_load_asks(domain: str, key: str, value: object, settings: dict[str, object]) -> None:
    loading = sdk_config.loading({f"{domain}.load.{key}": value}, domain, 32)
    assert loading == settings
    assert ModelSettings.model_validate(loading).model_dump(exclude_unset=True) == settings


def test_a_part_of_unknown_layers_is_the_runtimes_to_decide() -> None:
    assert sdk_config.loading({"llm.load.llama.acceleration.offloadRatio": 0.5}, "llm", None) == {}


def test_locked_memory_without_mapping() -> None:
    config = {"llm.load.llama.tryMmap": False, "llm.load.llama.keepModelInMemory": True}
    assert sdk_config.loading(config, "llm", None) == {"load_mode": "mlock"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("contextLength", "x"),
        ("contextLength", 1.5),
        ("useUnifiedKvCache", 1),
        ("llama.flashAttention", "on"),
        ("llama.kCacheQuantizationType", box(8)),
        ("llama.acceleration.offloadRatio", 1.5),
        ("llama.acceleration.offloadRatio", "half"),
    ],
)
def test_what_a_load_cannot_ask_is_named(key: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sdk_config.loading({f"llm.load.{key}": value}, "llm", 32)
    assert refused.value.param == f"llm.load.{key}"


def test_what_was_loaded_is_told_as_it_is_asked() -> None:
    config = {
        "llm.load.contextLength": 512,
        "llm.load.numParallelSessions": 3,
        "llm.load.useUnifiedKvCache": True,
        "llm.load.offloadKVCacheToGpu": False,
        "llm.load.llama.evalBatchSize": 64,
        "llm.load.llama.physicalBatchSize": 32,
        "llm.load.llama.flashAttention": False,
        "llm.load.llama.kCacheQuantizationType": box("q8_0"),
        "llm.load.llama.vCacheQuantizationType": box("f16"),
        "llm.load.llama.acceleration.offloadRatio": "max",
        "llm.load.llama.tryMmap": True,
        "llm.load.llama.keepModelInMemory": True,
    }
    settings = sdk_config.loading(config, "llm", 32)
    told = sdk_config.loaded(settings, 512, "llm")
    assert {field["key"]: field["value"] for field in told["fields"]} == config  # type: ignore[attr-defined]
    assert sdk_config.loaded({"parallel": 2}, 256, "embedding") == {
        "fields": [{"key": "embedding.load.contextLength", "value": 256}]
    }
