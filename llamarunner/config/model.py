"""What one model's process is started with: llama.cpp's own flags, with underscores, and a few settings of ours.

None means unset: the flag is not passed and the runtime decides. A flag that llama.cpp has renamed bears its newest
name here; the runtimes translate it for older builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from llamarunner.config.flags import refuse_reserved
from llamarunner.config.paths import PATH_SCHEMA, ConfigPath

RuntimeKind = Literal["auto", "llama-server", "xllamacpp", "llama-cpp-python"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
LayerCount = Annotated[int, Field(ge=0, le=10_000)]
Layers = LayerCount | Literal["auto", "all"]
Switch = Literal["on", "off", "auto"]
Threads = Annotated[int, Field(ge=1, le=4096)]
Tokens = Annotated[int, Field(ge=1, le=1_048_576)]
Factor = Annotated[float, Field(ge=0, le=1_000_000_000)]
Proportion = Annotated[float, Field(ge=0, le=1_000_000)]
DeviceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$")]
TensorRule = Annotated[str, Field(pattern=r"^[^\s\x85,=]+=[^\s\x85,=]+$")]  # not all readers count \x85 as a space
MetadataRule = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_.-]+=(int|float|bool|str):[^\s\x85,]{1,127}$", max_length=255)
]


LIFE = frozenset({"ttl_seconds", "pinned"})  # settings of when a model is unloaded, whatever runs it
T = TypeVar("T")


def parts_for(parts: Mapping[str, T], model_id: str) -> list[T]:
    """What is said about a model, by id or glob: the globs in the order of the file, then its own id."""
    wanted = model_id.casefold()
    exact = [part for key, part in parts.items() if key.casefold() == wanted]
    return [
        part for key, part in parts.items() if key.casefold() != wanted and fnmatchcase(wanted, key.casefold())
    ] + exact


def _extra_argument(argument: str) -> str:
    return refuse_reserved(argument, ModelSettings.model_fields)


ExtraArgument = Annotated[str, Field(min_length=1), AfterValidator(_extra_argument)]


class Frozen(BaseModel):
    """Base of every group of settings: immutable, no unknown key, no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoraAdapter(Frozen):
    """A LoRA adapter; in a file, a plain path stands for one at scale 1."""

    path: ConfigPath = Field(description="The adapter's GGUF file.")
    scale: float = Field(1.0, ge=-100, le=100, description="How strongly the adapter is applied; 1 is as trained.")

    @model_validator(mode="before")
    @classmethod
    def _accept_plain_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [PATH_SCHEMA, handler.resolve_ref_schema(handler(core))]}


class ModelSettings(Frozen):
    """How a model is run; `Settings.for_model` merges the defaults, the globs and the model's own section."""

    # context and memory
    ctx_size: int | None = Field(
        None,
        ge=0,
        le=16_777_216,
        description="Context length in tokens, shared by the slots unless kv_unified; 0 takes the model's own.",
    )
    parallel: int | None = Field(
        None, ge=1, le=256, description="Slots: how many requests the model works on at the same time."
    )
    kv_unified: bool | None = Field(
        None, description="One KV buffer for all slots, so that one long chat may use it all."
    )
    cache_type_k: CacheType | None = Field(None, description="Type of the keys in the KV cache.")
    cache_type_v: CacheType | None = Field(
        None, description="Type of the values in the KV cache; a quantised one needs flash attention."
    )
    cache_ram: int | None = Field(
        None,
        ge=-1,
        le=16_777_216,
        description="Prompt cache in main memory, in MiB, for each process; 0 is off, -1 has no limit.",
    )
    cache_reuse: int | None = Field(
        None,
        ge=0,
        le=1_048_576,
        description="Shortest chunk, in tokens, that is reused from the cache by shifting; 0 is off.",
    )
    swa_full: bool | None = Field(None, description="Keep the whole cache of models with sliding-window attention.")

    # compute
    threads: Threads | None = Field(None, description="CPU threads for generation.")
    threads_batch: Threads | None = Field(None, description="CPU threads for prompts; unset follows threads.")
    batch_size: Tokens | None = Field(None, description="Logical batch, in tokens.")
    ubatch_size: Tokens | None = Field(None, description="Physical batch, in tokens.")
    flash_attn: Switch | None = Field(None, description="Flash attention.")

    # graphics cards
    n_gpu_layers: Layers | None = Field(
        None, description="Layers kept on the GPU: a number, auto or all; 0 uses the CPU alone."
    )
    device: tuple[DeviceName, ...] | None = Field(
        None,
        description='Devices to use, such as CUDA0, as llama-server --list-devices names them; ["none"] uses no GPU.',
    )
    split_mode: Literal["none", "layer", "row", "tensor"] | None = Field(
        None, description="How the model is spread over several GPUs."
    )
    tensor_split: tuple[Proportion, ...] | None = Field(
        None, min_length=1, max_length=128, description="Share of each GPU, as proportions, such as [3, 1]."
    )
    kv_offload: bool | None = Field(None, description="Keep the KV cache on the GPU, as far as its layers are there.")
    main_gpu: int | None = Field(
        None, ge=0, le=127, description="The GPU used with split_mode none, or for intermediate results with row."
    )
    n_cpu_moe: LayerCount | None = Field(None, description="Keep the experts of the first N layers in main memory.")
    override_tensor: tuple[TensorRule, ...] | None = Field(
        None, description="Where tensors live: pattern=buffer type, such as exps=CPU."
    )
    override_kv: tuple[MetadataRule, ...] | None = Field(
        None, description="Metadata of the file that is taken otherwise: key=type:value, as llama.cpp writes it."
    )

    # loading
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = Field(
        None, description="How the file is read: memory-mapped, locked in memory, or by direct I/O."
    )
    mmproj: ConfigPath | None = Field(
        None, description="Projector file for images or sound; unset takes the one found beside it."
    )
    lora: tuple[LoraAdapter, ...] | None = Field(
        None, description="LoRA adapters: paths, or objects with path and scale."
    )

    # speculative decoding
    model_draft: ConfigPath | None = Field(None, description="Small model of the same family that drafts tokens ahead.")
    n_gpu_layers_draft: Layers | None = Field(None, description="Layers of the draft model kept on the GPU.")
    spec_draft_n_max: int | None = Field(None, ge=0, le=1024, description="Most tokens drafted at a time.")

    # chat
    jinja: bool | None = Field(None, description="Use the Jinja engine for chat templates; needed for tools.")
    chat_template: str | None = Field(
        None,
        min_length=1,
        description="Jinja template, or the name of one that llama.cpp knows, instead of the model's own.",
    )
    chat_template_file: ConfigPath | None = Field(None, description="File with a Jinja template.")
    chat_template_kwargs: Mapping[str, JsonValue] | None = Field(None, description="More values for the chat template.")
    reasoning: Switch | None = Field(None, description="Thinking before the answer; auto follows the template.")
    reasoning_format: Literal["auto", "none", "deepseek", "deepseek-legacy"] | None = Field(
        None, description="How thoughts are told apart from the answer; none leaves them in the content."
    )
    reasoning_budget: int | None = Field(
        None, ge=-1, le=16_777_216, description="Most tokens of thinking; -1 has no limit, 0 ends it at once."
    )

    # embeddings
    pooling: Literal["none", "mean", "cls", "last", "rank"] | None = Field(None, description="Pooling of embeddings.")

    # position encoding
    rope_scaling: Literal["none", "linear", "yarn"] | None = Field(None, description="Method of RoPE scaling.")
    rope_freq_base: Factor | None = Field(None, description="RoPE base frequency.")
    rope_freq_scale: Factor | None = Field(
        None, description="RoPE frequency factor; 1/N stretches the context N times."
    )
    yarn_orig_ctx: int | None = Field(
        None, ge=0, le=16_777_216, description="YaRN: context length of the training, in tokens."
    )
    yarn_ext_factor: float | None = Field(
        None, ge=-1, le=1, description="YaRN: extrapolation mix; 0 is full interpolation."
    )
    yarn_attn_factor: float | None = Field(None, ge=-1000, le=1000, description="YaRN: attention magnitude.")
    yarn_beta_slow: float | None = Field(None, ge=-1000, le=1000, description="YaRN: high correction dimension.")
    yarn_beta_fast: float | None = Field(None, ge=-1000, le=1000, description="YaRN: low correction dimension.")

    extra_args: tuple[ExtraArgument, ...] | None = Field(
        None, description="More flags for llama.cpp, one element each; those that LlamaRunner sets itself are refused."
    )

    # ours
    runtime: RuntimeKind | None = Field(None, description="Runtime for this model, if not the one of runtime.kind.")
    ttl_seconds: float | None = Field(
        None, ge=0, le=31_536_000, description="Unload after so many idle seconds, instead of supervisor.ttl_seconds."
    )
    pinned: bool | None = Field(
        None, description="Once loaded, neither unloaded when idle nor evicted for another model."
    )

    def merged(self, other: ModelSettings) -> Self:
        """Return these settings with what `other` sets put over them; lists and objects are replaced whole.

        A null that `other` sets on purpose takes a value back to unset.
        """
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})
