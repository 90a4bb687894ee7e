"""The flags of llama-server, as far as xllamacpp's parameters can honour them: what each one does to `CommonParams`.

Arguments are read as llama-server reads them: a flag takes the next argument, whatever that looks like, and the last
one wins. What has no place in the library's parameters is not here: `--device`, `--override-kv`, control vectors.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any, NamedTuple

EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
SWITCH = {"on": True, "off": False}
LAYERS = {"auto": -1, "all": -2}


class UsageError(Exception):
    """What is wrong with the arguments, in one line."""


class Flag(NamedTuple):
    """Names that mean the same, names that negate them, and what they do. Without a metavar, a flag takes no value."""

    names: str
    metavar: str
    apply: Callable[[Any, Any], None]
    off: str = ""


def number(names: str, attribute: str) -> Flag:
    return Flag(names, "N", lambda params, value: assign(params, attribute, int(value)))


def fraction(names: str, attribute: str) -> Flag:
    return Flag(names, "X", lambda params, value: assign(params, attribute, float(value)))


def text(names: str, attribute: str, metavar: str = "TEXT") -> Flag:
    return Flag(names, metavar, lambda params, value: assign(params, attribute, value))


def switch(names: str, attribute: str, off: str = "", inverted: bool = False) -> Flag:
    return Flag(names, "", lambda params, on: assign(params, attribute, on is not inverted), off)


def layers(names: str, attribute: str) -> Flag:
    return Flag(names, "N", lambda params, value: assign(params, attribute, LAYERS.get(value) or int(value)))


def choice(names: str, attribute: str, kind: str, spelled: dict[str, str] | None = None) -> Flag:
    """A member of an enumeration of xllamacpp; `spelled` tells which have other names there."""
    known = spelled or {}
    return Flag(names, "NAME", lambda params, value: assign(params, attribute, member(kind, known.get(value, value))))


def member(kind: str, name: str) -> Any:
    import xllamacpp

    members = getattr(xllamacpp, kind).__members__
    return members[f"{kind}_{name.replace('-', '_')}".upper()]


def assign(params: Any, attribute: str, value: Any) -> None:
    *parents, last = attribute.split(".")
    for parent in parents:
        params = getattr(params, parent)
    setattr(params, last, value)


def tensor_split(params: Any, value: str) -> None:
    shares = [float(share) for share in value.replace("/", ",").split(",")]
    params.tensor_split = shares + [0.0] * (len(params.tensor_split) - len(shares))


def override(params: Any, *rules: str) -> None:
    params.tensor_buft_overrides = ",".join(filter(None, [params.tensor_buft_overrides, *rules]))


def experts_on_cpu(params: Any, blocks: str) -> None:
    override(params, *(rf"blk\.{block}{EXPERTS}=CPU" for block in range(int(blocks))))


def adapters(params: Any, value: str) -> None:
    scaled_adapters(params, ",".join('"' + path.replace('"', '""') + ':1"' for path in next(csv.reader([value]))))


def scaled_adapters(params: Any, value: str) -> None:
    import xllamacpp

    for item in next(csv.reader([value])):
        path, _, scale = item.rpartition(":")
        params.lora_adapters = [*params.lora_adapters, xllamacpp.CommonAdapterLoraInfo(path, float(scale))]


def template_file(params: Any, path: str) -> None:
    with open(path, encoding="utf-8") as file:
        params.chat_template = file.read()


def template_values(params: Any, values: dict[str, Any]) -> None:
    encoded = {name: json.dumps(value) for name, value in values.items()}
    params.default_template_kwargs = {**params.default_template_kwargs, **encoded}


def reasoning(params: Any, value: str) -> None:
    params.enable_reasoning = {"on": 1, "off": 0, "auto": -1}[value]
    if value != "auto":
        template_values(params, {"enable_thinking": value == "on"})


def preserve_reasoning(params: Any, on: bool) -> None:
    params.preserve_reasoning_specified = True
    template_values(params, {"preserve_reasoning": on})


def rerank(params: Any, on: bool) -> None:
    params.embedding = True
    params.pooling_type = member("llama_pooling_type", "rank")


def speculation(params: Any, value: str) -> None:
    params.speculative.types = [member("common_speculative_type", name) for name in value.split(",")]


FLAGS: tuple[Flag, ...] = (
    text("-m --model", "model.path", "FILE"),
    Flag("-a --alias", "NAMES", lambda params, value: assign(params, "model_alias", set(value.split(",")))),
    Flag("--host", "ADDRESSES", lambda params, value: assign(params, "hostnames", value.split(","))),
    number("--port", "port"),
    number("--threads-http", "n_threads_http"),
    number("--sse-ping-interval", "sse_ping_interval"),
    switch("--metrics", "endpoint_metrics"),
    switch("--props", "endpoint_props"),
    switch("--slots", "endpoint_slots", off="--no-slots"),
    switch("--ui --webui", "ui", off="--no-ui --no-webui"),
    switch("--offline", "offline"),
    number("-lv --verbosity --log-verbosity", "verbosity"),
    # context and memory
    number("-c --ctx-size", "n_ctx"),
    number("-np --parallel", "n_parallel"),
    switch("-kvu --kv-unified", "kv_unified", off="-no-kvu --no-kv-unified"),
    choice("-ctk --cache-type-k", "cache_type_k", "ggml_type"),
    choice("-ctv --cache-type-v", "cache_type_v", "ggml_type"),
    number("-cram --cache-ram", "cache_ram_mib"),
    number("--cache-reuse", "n_cache_reuse"),
    switch("--cache-prompt", "cache_prompt", off="--no-cache-prompt"),
    switch("--cache-idle-slots", "cache_idle_slots", off="--no-cache-idle-slots"),
    number("-ctxcp --ctx-checkpoints --swa-checkpoints", "n_ctx_checkpoints"),
    number("-cms --checkpoint-min-step", "checkpoint_min_step"),
    switch("--swa-full", "swa_full"),
    switch("--context-shift", "ctx_shift", off="--no-context-shift"),
    number("--keep", "n_keep"),
    fraction("-sps --slot-prompt-similarity", "slot_prompt_similarity"),
    # compute
    number("-t --threads", "cpuparams.n_threads"),
    number("-tb --threads-batch", "cpuparams_batch.n_threads"),
    number("-b --batch-size", "n_batch"),
    number("-ub --ubatch-size", "n_ubatch"),
    choice("-fa --flash-attn", "flash_attn_type", "llama_flash_attn_type", {"on": "enabled", "off": "disabled"}),
    switch("-cb --cont-batching", "cont_batching", off="-nocb --no-cont-batching"),
    switch("--warmup", "warmup", off="--no-warmup"),
    switch("--repack", "no_extra_bufts", off="-nr --no-repack", inverted=True),
    choice("--numa", "numa", "ggml_numa_strategy"),
    # graphics cards
    layers("-ngl --gpu-layers --n-gpu-layers", "n_gpu_layers"),
    choice("-sm --split-mode", "split_mode", "llama_split_mode"),
    Flag("-ts --tensor-split", "SHARES", tensor_split),
    number("-mg --main-gpu", "main_gpu"),
    Flag("-ot --override-tensor", "RULES", override),
    Flag("-cmoe --cpu-moe", "", lambda params, on: override(params, f"{EXPERTS}=CPU")),
    Flag("-ncmoe --n-cpu-moe", "N", experts_on_cpu),
    Flag("-fit --fit", "on|off", lambda params, value: assign(params, "fit_params", SWITCH[value])),
    number("-fitc --fit-ctx", "fit_params_min_ctx"),
    switch("-kvo --kv-offload", "no_kv_offload", off="-nkvo --no-kv-offload", inverted=True),
    switch("--op-offload", "no_op_offload", off="--no-op-offload", inverted=True),
    switch("--no-host", "no_host"),
    # loading
    choice("-lm --load-mode", "load_mode", "llama_load_mode", {"dio": "direct_io", "mmap+mlock": "mmap_mlock"}),
    choice("-lzm --lazy-mode", "lazy_mode", "llama_lazy_mode"),
    switch("--check-tensors", "check_tensors"),
    text("-mm --mmproj", "mmproj.path", "FILE"),
    switch("--mmproj-offload", "mmproj_use_gpu", off="--no-mmproj-offload"),
    number("--image-min-tokens", "image_min_tokens"),
    number("--image-max-tokens", "image_max_tokens"),
    Flag("--lora", "FILES", adapters),
    Flag("--lora-scaled", "FILE:SCALE,…", scaled_adapters),
    switch("--lora-init-without-apply", "lora_init_without_apply"),
    # speculative decoding
    text("-md --model-draft --spec-draft-model", "speculative.draft.mparams.path", "FILE"),
    layers("-ngld --n-gpu-layers-draft --gpu-layers-draft --spec-draft-ngl", "speculative.draft.n_gpu_layers"),
    Flag("--spec-type", "NAMES", speculation),
    number("--spec-draft-n-max", "speculative.draft.n_max"),
    number("--spec-draft-n-min", "speculative.draft.n_min"),
    fraction("--spec-draft-p-min --draft-p-min", "speculative.draft.p_min"),
    choice("-ctkd --cache-type-k-draft --spec-draft-type-k", "speculative.draft.cache_type_k", "ggml_type"),
    choice("-ctvd --cache-type-v-draft --spec-draft-type-v", "speculative.draft.cache_type_v", "ggml_type"),
    # chat and sampling
    switch("--jinja", "use_jinja", off="--no-jinja"),
    text("--chat-template", "chat_template"),
    Flag("--chat-template-file", "FILE", template_file),
    Flag("--chat-template-kwargs", "JSON", lambda params, value: template_values(params, json.loads(value))),
    Flag("-rea --reasoning", "on|off|auto", reasoning),
    choice("--reasoning-format", "reasoning_format", "common_reasoning_format"),
    number("--reasoning-budget", "sampling.reasoning_budget_tokens"),
    text("--reasoning-budget-message", "sampling.reasoning_budget_message"),
    Flag("--reasoning-preserve", "", preserve_reasoning, "--no-reasoning-preserve"),
    switch("--prefill-assistant", "prefill_assistant", off="--no-prefill-assistant"),
    number("-n --predict --n-predict", "n_predict"),
    number("-s --seed", "sampling.seed"),
    fraction("--temp --temperature", "sampling.temp"),
    number("--top-k", "sampling.top_k"),
    fraction("--top-p", "sampling.top_p"),
    fraction("--min-p", "sampling.min_p"),
    number("--repeat-last-n", "sampling.penalty_last_n"),
    fraction("--repeat-penalty", "sampling.penalty_repeat"),
    fraction("--presence-penalty", "sampling.penalty_present"),
    fraction("--frequency-penalty", "sampling.penalty_freq"),
    # embeddings
    switch("--embeddings --embedding", "embedding"),
    Flag("--reranking --rerank", "", rerank),
    choice("--pooling", "pooling_type", "llama_pooling_type"),
    number("--embd-normalize", "embd_normalize"),
    # position encoding
    choice("--rope-scaling", "rope_scaling_type", "llama_rope_scaling_type"),
    Flag("--rope-scale", "X", lambda params, value: assign(params, "rope_freq_scale", 1 / float(value))),
    fraction("--rope-freq-base", "rope_freq_base"),
    fraction("--rope-freq-scale", "rope_freq_scale"),
    number("--yarn-orig-ctx", "yarn_orig_ctx"),
    fraction("--yarn-ext-factor", "yarn_ext_factor"),
    fraction("--yarn-attn-factor", "yarn_attn_factor"),
    fraction("--yarn-beta-slow", "yarn_beta_slow"),
    fraction("--yarn-beta-fast", "yarn_beta_fast"),
)


def parse(arguments: list[str], params: Any) -> None:
    """Apply the arguments in order; raises UsageError."""
    table: dict[str, tuple[Flag, Any]] = {name: (flag, True) for flag in FLAGS for name in flag.names.split()}
    table |= {name: (flag, False) for flag in FLAGS for name in flag.off.split()}
    rest = iter(arguments)
    for argument in rest:
        name = argument.replace("_", "-") if argument.startswith("--") else argument
        if name not in table:
            raise UsageError(f"invalid argument: {argument}")
        flag, value = table[name]
        if flag.metavar and (value := next(rest, None)) is None:
            raise UsageError(f"{name} needs a value")
        try:
            flag.apply(params, value)
        except Exception as error:
            raise UsageError(f"invalid value of {name}: {value!r} ({type(error).__name__})") from error


def usage() -> str:
    """List the flags, one line each, as llama-server's `--help` does."""
    return "\n".join(f"{', '.join([*flag.names.split(), *flag.off.split()])} {flag.metavar}".strip() for flag in FLAGS)
