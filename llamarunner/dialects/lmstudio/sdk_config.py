"""Configurations as LM Studio's SDKs send and expect them: lists of keys and values, in layers.

    {"layers": [{"layerName": "apiOverride", "config": {"fields": [{"key": "llm.prediction.seed", "value": …}]}}]}

A checkbox is `{"checked": true, "value": 0.9}`; one that is not checked is not set. What llama.cpp has nothing for is
left alone, as it is between LM Studio's own engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llamarunner.errors import InvalidRequest

Config = Mapping[str, Any]

MOST_FIELDS = 1000  # in all layers
COMPLETING = "completeModeFormatting"  # the layer that asks for plain completion of a text
PROMPT_TEMPLATE = "llm.prediction.promptTemplate"


def flattened(stack: object) -> dict[str, Any]:
    """The values of a stack of layers by key, of which the first layer wins. Raises InvalidRequest."""
    values: dict[str, Any] = {}
    for name, key, value in _fields(stack):
        if name != COMPLETING:
            values.setdefault(key, value)
    return values


def completes(stack: object) -> bool:
    """Tell whether a stack asks for the completion of a text, without the model's template. Raises InvalidRequest."""
    return any(name == COMPLETING and key == PROMPT_TEMPLATE for name, key, _ in _fields(stack))


def written(values: Config) -> dict[str, object]:
    """Write values by key as a configuration; those that are None are left out."""
    return {"fields": [{"key": key, "value": value} for key, value in values.items() if value is not None]}


def _fields(stack: object) -> Iterator[tuple[str, str, Any]]:
    """The name of the layer, the key and the value of each field."""
    count = 0
    for at, layer in enumerate(_list(stack, "layers", "")):
        place = f"layers[{at}]"
        if not isinstance(layer, dict) or not isinstance(layer.get("layerName"), str):
            raise _wrong(f"{place}.layerName", "a text")
        for number, field in enumerate(_list(layer.get("config"), "fields", f"{place}.config.")):
            if not isinstance(field, dict) or not isinstance(field.get("key"), str):
                raise _wrong(f"{place}.config.fields[{number}].key", "a text")
            count += 1
            if count > MOST_FIELDS:
                raise InvalidRequest(f"A configuration has at most {MOST_FIELDS} fields.", param="layers")
            yield layer["layerName"], field["key"], field.get("value")


def _list(holder: object, name: str, place: str) -> list[Any]:
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, list):
        raise _wrong(place + name, "a list")
    return value


# ── predictions ────────────────────────────────────────────────────────────────────────────────────────────────────

LLAMA = "llm.prediction.llama."


def asked(config: Config) -> dict[str, object]:
    """The fields of a request to llama.cpp that a prediction's configuration asks for. Raises InvalidRequest."""
    if config.get(PROMPT_TEMPLATE) is not None:
        raise InvalidRequest("A prompt template can be set in the settings only.", param=PROMPT_TEMPLATE)
    fields: dict[str, object] = {}
    for key, (name, read) in _SAMPLING.items():
        if (value := _unboxed(config.get(key))) is not None:
            fields[name] = read(key, value)
    return fields | _mirostat(config) | _thinking(config) | _structured(config) | _tools(config)


def _unboxed(value: Any) -> Any:
    """The value of a field, whether it is a checkbox or not; None if it is not set."""
    if isinstance(value, dict) and isinstance(value.get("checked"), bool):
        return value.get("value") if value["checked"] else None
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(key, "a number")
    return value


def _whole(key: str, value: Any) -> int:
    number = _number(key, value)
    if number != int(number):
        raise _wrong(key, "a whole number")
    return int(number)


def _texts(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _wrong(key, "a list of texts")
    return [text for text in value if text]


def _biases(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise _wrong(key, "a list of pairs")
    return value


_SAMPLING: Mapping[str, tuple[str, Callable[[str, Any], object]]] = {
    "llm.prediction.temperature": ("temperature", _number),
    "llm.prediction.maxPredictedTokens": ("max_tokens", _whole),
    "llm.prediction.stopStrings": ("stop", _texts),
    "llm.prediction.topKSampling": ("top_k", _whole),  # comes as 5.0 from Python
    "llm.prediction.topPSampling": ("top_p", _number),
    "llm.prediction.minPSampling": ("min_p", _number),
    "llm.prediction.repeatPenalty": ("repeat_penalty", _number),
    "llm.prediction.seed": ("seed", _whole),
    LLAMA + "frequencyPenalty": ("frequency_penalty", _number),
    LLAMA + "presencePenalty": ("presence_penalty", _number),
    LLAMA + "xtcProbability": ("xtc_probability", _number),
    LLAMA + "xtcThreshold": ("xtc_threshold", _number),
    LLAMA + "locallyTypicalSampling": ("typical_p", _number),
    LLAMA + "logitBias": ("logit_bias", _biases),
}


def _mirostat(config: Config) -> dict[str, object]:
    key = LLAMA + "mirostatSampling"
    chosen = config.get(key)
    if not isinstance(chosen, dict) or not chosen.get("version"):
        return {}
    names = {"version": "mirostat", "learningRate": "mirostat_eta", "targetEntropy": "mirostat_tau"}
    return {name: _number(f"{key}.{part}", chosen[part]) for part, name in names.items() if part in chosen}


def _thinking(config: Config) -> dict[str, object]:
    wanted = config.get("llm.prediction.reasoning.enableThinking")
    if not isinstance(wanted, bool):
        wanted = False if _structured(config) else None
    fields: dict[str, object] = {} if wanted is None else {"chat_template_kwargs": {"enable_thinking": wanted}}
    if _parsing(config).get("enabled") is False:
        fields["reasoning_format"] = "none"
    return fields


def tags(config: Config) -> tuple[str, str] | None:
    """What stands before and after thoughts; None if they are not told.

    Clients read a structured answer as JSON, thoughts and all, so it has none.
    """
    if _structured(config):
        return None
    start, end = (_parsing(config).get(name) for name in ("startString", "endString"))
    return start if isinstance(start, str) else "<think>", end if isinstance(end, str) else "</think>"


def _parsing(config: Config) -> Config:
    parsing = config.get("llm.prediction.reasoning.parsing")
    return parsing if isinstance(parsing, dict) else {}


def _structured(config: Config) -> dict[str, object]:
    key = "llm.prediction.structured"
    chosen = config.get(key)
    if not isinstance(chosen, dict):
        return {}
    match chosen.get("type"):
        case "none" | None:
            return {}
        case "json" if chosen.get("jsonSchema") is None:
            return {"response_format": {"type": "json_object"}}
        case "json":
            schema = {"name": "response", "strict": True, "schema": chosen["jsonSchema"]}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "gbnf" if isinstance(chosen.get("gbnfGrammar"), str):
            return {"grammar": chosen["gbnfGrammar"]}
    raise _wrong(key, "of the type none, json or gbnf")


def _tools(config: Config) -> dict[str, object]:
    key = "llm.prediction.tools"
    chosen = config.get(key)
    if not isinstance(chosen, dict) or chosen.get("type") in ("none", None):
        return {}
    tools = chosen.get("tools", [])
    if chosen["type"] != "toolArray" or not isinstance(tools, list):
        raise _wrong(key, "of the type none or toolArray")
    choice = config.get("llm.prediction.toolChoice")
    mode = choice.get("mode") if isinstance(choice, dict) else None
    return {"tools": tools, **({"tool_choice": mode} if mode in ("auto", "none", "required") else {})} if tools else {}


# ── loads ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def loading(config: Config, domain: str, layers: int | None) -> dict[str, object]:
    """The settings of a model that a load's configuration asks for, by the names of `ModelSettings`.

    `ctx_size` is what one request can use. `domain` is `llm` or `embedding`, `layers` how many layers the model has.
    Raises InvalidRequest.
    """
    settings: dict[str, object] = {}
    for key, (name, read) in _LOADING.items():
        whole = f"{domain}.load.{key}"
        if (value := _unboxed(config.get(whole))) is not None:
            settings[name] = read(whole, value)
    ratio = f"{domain}.load.llama.acceleration.offloadRatio"
    if (chosen := _layers(ratio, _unboxed(config.get(ratio)), layers)) is not None:
        settings["n_gpu_layers"] = chosen
    if (mode := _load_mode(config, domain)) is not None:
        settings["load_mode"] = mode
    return settings


def _switch(key: str, value: Any) -> str:
    return "on" if _flag(key, value) else "off"


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false")
    return value


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "a text")
    return value


_LOADING: Mapping[str, tuple[str, Callable[[str, Any], object]]] = {
    "contextLength": ("ctx_size", _whole),
    "numParallelSessions": ("parallel", _whole),
    "useUnifiedKvCache": ("kv_unified", _flag),
    "offloadKVCacheToGpu": ("kv_offload", _flag),
    "llama.cpuThreadPoolSize": ("threads", _whole),
    "llama.evalBatchSize": ("batch_size", _whole),
    "llama.physicalBatchSize": ("ubatch_size", _whole),
    "llama.flashAttention": ("flash_attn", _switch),
    "llama.kCacheQuantizationType": ("cache_type_k", _text),
    "llama.vCacheQuantizationType": ("cache_type_v", _text),
    "llama.ropeFrequencyBase": ("rope_freq_base", _number),
    "llama.ropeFrequencyScale": ("rope_freq_scale", _number),
}


def _layers(key: str, ratio: Any, layers: int | None) -> object:
    """How many layers a graphics card is to have."""
    if ratio is None or ratio == "max":
        return None if ratio is None else "all"
    share = 0.0 if ratio == "off" else _number(key, ratio)
    if not 0 <= share <= 1:
        raise _wrong(key, "from 0 to 1, max or off")
    if share in (0.0, 1.0):
        return "all" if share else 0
    return None if layers is None else round(share * layers)


def _load_mode(config: Config, domain: str) -> str | None:
    mapped, locked = config.get(f"{domain}.load.llama.tryMmap"), config.get(f"{domain}.load.llama.keepModelInMemory")
    if mapped is None and locked is None:
        return None
    if mapped is False:
        return "mlock" if locked is True else "none"
    return "mmap+mlock" if locked is True else "mmap"


def loaded(settings: Mapping[str, Any], context_length: int | None, domain: str) -> dict[str, object]:
    """Say with what a model is loaded; `settings` are those of `ModelSettings`, `context_length` is in tokens."""
    flash = {"on": True, "off": False}.get(settings.get("flash_attn") or "")
    gpu = settings.get("n_gpu_layers")
    mode = settings.get("load_mode")
    common = {
        "contextLength": context_length,
        "llama.acceleration.offloadRatio": {"all": "max", 0: "off"}.get(gpu) if isinstance(gpu, int | str) else None,
        "llama.evalBatchSize": settings.get("batch_size"),
        "llama.keepModelInMemory": None if mode in (None, "auto") else "mlock" in mode,
        "llama.tryMmap": None if mode in (None, "auto") else "mmap" in mode,
    }
    if domain == "llm":
        common |= {
            "numParallelSessions": settings.get("parallel"),
            "useUnifiedKvCache": settings.get("kv_unified"),
            "offloadKVCacheToGpu": settings.get("kv_offload"),
            "llama.physicalBatchSize": settings.get("ubatch_size"),
            "llama.flashAttention": flash,
            "llama.kCacheQuantizationType": _checkbox(settings.get("cache_type_k")),
            "llama.vCacheQuantizationType": _checkbox(settings.get("cache_type_v")),
        }
    return written({f"{domain}.load.{key}": value for key, value in common.items()})


def _checkbox(value: object) -> dict[str, object] | None:
    return None if value is None else {"checked": True, "value": value}


def _wrong(key: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"'{key[:200]}' must be {wanted}.", param=key[:200])
