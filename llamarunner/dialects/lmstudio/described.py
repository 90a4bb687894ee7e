"""The facts of a model and of its instances as LM Studio tells them, by whichever of its APIs.

A *key* names a model, an *instance id* one of its running instances: `key`, `key:2`, `key:3`. Which keys of an object
are left out and which are null follows LM Studio's REST API v1 and v0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llamarunner.catalog import Capability, ModelEntry, Source
from llamarunner.config import ModelSettings
from llamarunner.dialects.lmstudio.managing import LoadConfig, without_nothing

Object = dict[str, Any]

NOBODY = "local"  # the publisher of a file that does not say who made it
OURS = "llamarunner"
EVAL_BATCH = 2048  # llama.cpp's own
_GENERATES = frozenset({Capability.CHAT, Capability.COMPLETION})
_EMBEDS = frozenset({Capability.EMBEDDING, Capability.RERANK})
_SIZE_LABEL = re.compile(r"\d+(x\d+)?(\.\d+)?[KMBTQ](-A\d+(\.\d+)?[KMBTQ])?", re.IGNORECASE)
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


@dataclass(frozen=True, slots=True)
class Quantization:
    """How weights are stored: llama.cpp's name of it, and about how many bits each takes."""

    name: str
    bits: int | None


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model, loaded or not."""

    key: str
    publisher: str
    display_name: str
    kind: Literal["llm", "vlm", "embedding"]
    architecture: str | None
    quantization: Quantization | None
    params: str | None  # such as 4B or 30B-A3B
    size_bytes: int
    max_context_length: int  # tokens; 0 if the file does not say
    tool_use: bool  # trained for it
    reasoning: bool  # thinks, unless it is told not to
    description: str | None
    format: Literal["gguf"] = "gguf"

    @property
    def type(self) -> Literal["llm", "embedding"]:
        """What v1 and the SDKs call it, to which a vision model is an LLM that can see."""
        return "embedding" if self.kind == "embedding" else "llm"

    @property
    def vision(self) -> bool:
        return self.kind == "vlm"


@dataclass(frozen=True, slots=True)
class Config:
    """How an instance runs. `num_experts` is for mixtures of experts alone."""

    context_length: int  # tokens that one request can have
    eval_batch_size: int
    parallel: int
    flash_attention: bool
    num_experts: int | None
    offload_kv_cache_to_gpu: bool


@dataclass(frozen=True, slots=True)
class Instance:
    """A loaded instance of a model."""

    id: str
    config: Config


def is_told(entry: ModelEntry) -> bool:
    """Tell whether LM Studio could have a model: speech models are neither LLMs nor embedding models."""
    return not entry.error and not entry.capabilities.isdisjoint(_GENERATES | _EMBEDS)


def model(entry: ModelEntry) -> Model:
    """Tell the facts of a model for which `is_told` holds."""
    header = entry.header
    generates = not entry.capabilities.isdisjoint(_GENERATES)
    sees = Capability.VISION in entry.capabilities
    return Model(
        key=entry.id,
        publisher=publisher(entry),
        display_name=(header.text("general.name") if header else None) or entry.id,
        kind=("vlm" if sees else "llm") if generates else "embedding",
        architecture=entry.architecture,
        quantization=_quantization(entry.quantization),
        params=_params(entry),
        size_bytes=entry.size + entry.mmproj_size,
        max_context_length=entry.context_length or 0,
        tool_use=Capability.TOOLS in entry.capabilities,
        reasoning=Capability.THINKING in entry.capabilities,
        description=(header.text("general.description") if header else None) or None,
    )


def publisher(entry: ModelEntry) -> str:
    """Who published a model, by its place or its file."""
    if entry.source is Source.DEMO:
        return OURS
    said = entry.header.text("general.organization") if entry.header else None
    return entry.publisher or said or NOBODY


def config(entry: ModelEntry, settings: ModelSettings, context_length: int, slots: int) -> Config:
    """Tell how an instance with these settings runs; `context_length` and `slots` are what it was granted."""
    return Config(
        context_length=context_length,
        eval_batch_size=settings.batch_size or EVAL_BATCH,
        parallel=slots,
        flash_attention=settings.flash_attn != "off",
        num_experts=_experts(entry, settings),
        offload_kv_cache_to_gpu=settings.kv_offload is not False,
    )


def experts_rule(entry: ModelEntry, number: int) -> str | None:
    """Say in llama.cpp's words how many experts a mixture uses for each token; None for what is no mixture."""
    header = entry.header
    known = header is not None and header.detail("expert_count")
    return f"{_experts_key(entry)}{number}" if known else None


# ── REST v1 ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class V1Quantization:
    name: str
    bits_per_weight: int | None


@dataclass(frozen=True, slots=True)
class V1Config:
    """How an instance runs; of an embedding model only what it has a use for."""

    context_length: int
    eval_batch_size: int | None = None
    parallel: int | None = None
    flash_attention: bool | None = None
    num_experts: int | None = None
    offload_kv_cache_to_gpu: bool | None = None


@dataclass(frozen=True, slots=True)
class V1Instance:
    id: str
    config: V1Config


@dataclass(frozen=True, slots=True)
class V1Reasoning:
    allowed_options: list[str]
    default: str


@dataclass(frozen=True, slots=True)
class V1Capabilities:
    vision: bool
    trained_for_tool_use: bool
    reasoning: V1Reasoning | None = None  # of models that think


@dataclass(frozen=True, slots=True, kw_only=True)
class V1Model:
    """One model of GET /api/v1/models, its keys in LM Studio's order; those with a default are of LLMs alone."""

    type: Literal["llm", "embedding"]
    publisher: str
    key: str
    display_name: str
    architecture: str | None = None
    quantization: V1Quantization | None
    size_bytes: int
    params_string: str | None
    loaded_instances: list[V1Instance]
    max_context_length: int
    format: Literal["gguf"]
    capabilities: V1Capabilities | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class V1Models:
    models: list[V1Model]


_OF_LLMS = ("architecture", "capabilities", "description")


def v1_model(told: Model, instances: Sequence[Instance]) -> Object:
    """Describe a model as a `V1Model`."""
    quantization, llm = told.quantization, told.type == "llm"
    options = reasoning_options(told)
    reasoning = V1Reasoning(list(options), "on" if "on" in options else options[0]) if options else None
    document = asdict(
        V1Model(
            type=told.type,
            publisher=told.publisher,
            key=told.key,
            display_name=told.display_name,
            architecture=told.architecture,
            quantization=V1Quantization(quantization.name, quantization.bits) if quantization else None,
            size_bytes=told.size_bytes,
            params_string=told.params,
            loaded_instances=[V1Instance(one.id, v1_config(told, one.config)) for one in instances],
            max_context_length=told.max_context_length,
            format=told.format,
            capabilities=V1Capabilities(told.vision, told.tool_use, reasoning),
            description=told.description,
        )
    )
    document["capabilities"] = without_nothing(document["capabilities"])
    document["loaded_instances"] = [without_nothing(one) for one in document["loaded_instances"]]
    return {key: value for key, value in document.items() if llm or key not in _OF_LLMS}


def v1_config(told: Model, chosen: Config) -> V1Config:
    """Say how an instance runs; of an embedding model only what it has a use for."""
    if told.type == "embedding":
        return V1Config(chosen.context_length, parallel=chosen.parallel)
    return V1Config(**asdict(chosen))


def v1_load_config(told: Model, chosen: Config) -> LoadConfig:
    """Say the same as a load echoes it."""
    if told.type == "embedding":
        return LoadConfig(chosen.context_length)
    return LoadConfig(
        context_length=chosen.context_length,
        eval_batch_size=chosen.eval_batch_size,
        flash_attention=chosen.flash_attention,
        offload_kv_cache_to_gpu=chosen.offload_kv_cache_to_gpu,
        num_experts=chosen.num_experts,
    )


def reasoning_options(told: Model) -> tuple[str, ...]:
    """How a model can be told to reason, in LM Studio's words; some always do, and only know how hard."""
    if told.architecture == "gpt-oss":
        return ("low", "medium", "high")
    return ("off", "on") if told.reasoning else ()


# ── REST v0 ────────────────────────────────────────────────────────────────────────────────────────────────────────


State = Literal["loaded", "loading", "not-loaded"]


@dataclass(frozen=True, slots=True)
class V0Model:
    """One item of GET /api/v0/models: a model, or an instance beside the first."""

    id: str
    object: Literal["model"]
    type: Literal["llm", "vlm", "embeddings"]
    publisher: str
    arch: str | None
    compatibility_type: Literal["gguf"]
    quantization: str | None
    state: State
    max_context_length: int
    loaded_context_length: int | None = None  # of what is loaded
    capabilities: list[str] | None = None  # if there are any


@dataclass(frozen=True, slots=True)
class V0Models:
    data: list[V0Model]
    object: Literal["list"]


def v0_model(
    told: Model, instance: str | None = None, state: State = "not-loaded", context: int | None = None
) -> Object:
    """Describe a model, or an instance by its id with the context that it has, as a `V0Model`."""
    document = asdict(
        V0Model(
            id=instance or told.key,
            object="model",
            type="embeddings" if told.kind == "embedding" else told.kind,
            publisher=told.publisher,
            arch=told.architecture,
            compatibility_type=told.format,
            quantization=told.quantization.name if told.quantization else None,
            state=state,
            max_context_length=told.max_context_length,
            loaded_context_length=context,
            capabilities=["tool_use"] if told.tool_use else None,
        )
    )
    optional = ("loaded_context_length", "capabilities")
    return {key: value for key, value in document.items() if value is not None or key not in optional}


def _quantization(name: str | None) -> Quantization | None:
    """Read the bits from the name: 4 of Q4_K_M, 2 of IQ2_XXS, 16 of BF16."""
    if not name:
        return None
    digits = re.search(r"\d+", name)
    return Quantization(name.upper(), int(digits[0]) if digits else None)


def _params(entry: ModelEntry) -> str | None:
    """How many parameters, as the file labels itself, else counted."""
    label = entry.header.text("general.size_label") if entry.header else None
    if label and _SIZE_LABEL.fullmatch(label):
        return label.upper().replace("X", "x")
    count = entry.parameters or 0
    return next((f"{count / size:.1f}{unit}".replace(".0", "") for size, unit in _UNITS if count >= size), None)


def _experts(entry: ModelEntry, settings: ModelSettings) -> int | None:
    own = entry.header.detail("expert_used_count") if entry.header else None
    chosen = [rule.partition("=int:")[2] for rule in settings.override_kv or () if rule.startswith(_experts_key(entry))]
    return int(chosen[-1]) if own and chosen and chosen[-1].isdecimal() else own


def _experts_key(entry: ModelEntry) -> str:
    return f"{entry.architecture}.expert_used_count=int:"
