"""llama.cpp's own server out of the xllamacpp wheel, as a program with llama-server's flags.

`python -m llamarunner.workers.llama_server --model FILE --port 0` loads the model, listens, and prints one line of JSON on
stdout, `{"event": "ready", "port": …, "pid": …}`; everything else goes to stderr. The API key comes from
`LLAMA_API_KEY`. SIGTERM ends it at once, with exit code 0 (while it still loads, by the signal itself).

Defaults are those of llama-server: where its main program sets one that the library does not, `complete` does so. The
arguments are read as llama-server reads them: a flag takes the next argument, whatever that looks like. Flags that the
library cannot honour (`--device`, since its parameters have no device list) are not known here.

Starting must be quick, so this file stands alone and imports little.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

USAGE_ERROR = 2
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


class UsageError(Exception):
    """What is wrong with the arguments, in one line."""


class Flag(NamedTuple):
    """Names that mean the same, and what one of them does to the parameters; `off` are the names that negate it."""

    names: str
    metavar: str
    apply: Callable[[Any, Any], None]
    off: str = ""


def number(names: str, *attributes: str) -> Flag:
    return Flag(names, "N", lambda params, text: _assign(params, attributes, int(text)))


def fraction(names: str, attribute: str) -> Flag:
    return Flag(names, "X", lambda params, text: _assign(params, (attribute,), float(text)))


def text(names: str, attribute: str, metavar: str = "TEXT") -> Flag:
    return Flag(names, metavar, lambda params, value: _assign(params, (attribute,), value))


def switch(names: str, attribute: str, off: str = "", inverted: bool = False) -> Flag:
    return Flag(names, "", lambda params, on: _assign(params, (attribute,), on is not inverted), off)


def choice(names: str, attribute: str, kind: str, **spelled: str) -> Flag:
    """A flag whose value is a member of an enumeration of xllamacpp; `spelled` are those with other names there."""

    def apply(params: Any, value: str) -> None:
        members = _library_enum(kind)
        prefix = os.path.commonprefix(list(members))
        _assign(params, (attribute,), members[prefix + spelled.get(value, value).upper().replace("-", "_")])

    return Flag(names, "NAME", apply)


def _library_enum(kind: str) -> Any:
    import xllamacpp

    return getattr(xllamacpp, kind).__members__


def _assign(params: Any, attributes: tuple[str, ...], value: Any) -> None:
    for attribute in attributes:
        *parents, last = attribute.split(".")
        owner = params
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, last, value)


def _layers(attribute: str) -> Callable[[Any, str], None]:
    words = {"auto": -1, "all": -2}
    return lambda params, value: _assign(params, (attribute,), words[value] if value in words else int(value))


def _tensor_split(params: Any, value: str) -> None:
    shares = [float(share) for share in value.replace("/", ",").split(",")]
    params.tensor_split = shares + [0.0] * (len(params.tensor_split) - len(shares))


def _override(params: Any, rules: list[str]) -> None:
    params.tensor_buft_overrides = ",".join(filter(None, [params.tensor_buft_overrides, *rules]))


def _adapters(params: Any, value: str, scaled: bool) -> None:
    import csv

    import xllamacpp

    for item in next(csv.reader([value])):
        path, scale = item.rsplit(":", 1) if scaled else (item, "1")
        params.lora_adapters = [*params.lora_adapters, xllamacpp.CommonAdapterLoraInfo(path, float(scale))]


def _template_file(params: Any, path: str) -> None:
    with open(path, encoding="utf-8") as file:
        params.chat_template = file.read()


def _template_values(params: Any, values: dict[str, Any]) -> None:
    encoded = {name: json.dumps(value) for name, value in values.items()}
    params.default_template_kwargs = {**params.default_template_kwargs, **encoded}


def _reasoning(params: Any, value: str) -> None:
    params.enable_reasoning = {"on": 1, "off": 0, "auto": -1}[value]
    if value != "auto":
        _template_values(params, {"enable_thinking": value == "on"})


def _preserve(params: Any, on: bool) -> None:
    params.preserve_reasoning_specified = True
    _template_values(params, {"preserve_reasoning": on})


def _rerank(params: Any, on: bool) -> None:
    params.embedding = True
    params.pooling_type = _library_enum("llama_pooling_type")["LLAMA_POOLING_TYPE_RANK"]


def _speculation(params: Any, value: str) -> None:
    members = _library_enum("common_speculative_type")
    params.speculative.types = [
        members["COMMON_SPECULATIVE_TYPE_" + name.upper().replace("-", "_")] for name in value.split(",")
    ]


FLAGS: tuple[Flag, ...] = (
    text("-m --model", "model.path", "FILE"),
    Flag("-a --alias", "NAMES", lambda params, value: _assign(params, ("model_alias",), set(value.split(",")))),
    Flag("--host", "ADDRESSES", lambda params, value: _assign(params, ("hostnames",), value.split(","))),
    number("--port", "port"),
    number("-to --timeout", "timeout_read", "timeout_write"),
    number("--threads-http", "n_threads_http"),
    number("--sse-ping-interval", "sse_ping_interval"),
    text("--api-prefix", "api_prefix"),
    switch("--metrics", "endpoint_metrics"),
    switch("--props", "endpoint_props"),
    switch("--slots", "endpoint_slots", off="--no-slots"),
    switch("--ui --webui", "ui", off="--no-ui --no-webui"),
    switch("--offline", "offline"),
    switch("--log-jsonl", "log_json", off="--no-log-jsonl"),
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
    choice("-fa --flash-attn", "flash_attn_type", "llama_flash_attn_type", on="ENABLED", off="DISABLED"),
    switch("-cb --cont-batching", "cont_batching", off="-nocb --no-cont-batching"),
    switch("--warmup", "warmup", off="--no-warmup"),
    switch("--perf", "no_perf", off="--no-perf", inverted=True),
    switch("--repack", "no_extra_bufts", off="-nr --no-repack", inverted=True),
    choice("--numa", "numa", "ggml_numa_strategy"),
    # graphics cards
    Flag("-ngl --gpu-layers --n-gpu-layers", "N", _layers("n_gpu_layers")),
    choice("-sm --split-mode", "split_mode", "llama_split_mode"),
    Flag("-ts --tensor-split", "SHARES", _tensor_split),
    number("-mg --main-gpu", "main_gpu"),
    Flag("-ot --override-tensor", "RULES", lambda params, value: _override(params, [value])),
    Flag("-cmoe --cpu-moe", "", lambda params, on: _override(params, [f"{EXPERTS}=CPU"])),
    Flag(
        "-ncmoe --n-cpu-moe",
        "N",
        lambda params, n: _override(params, [rf"blk\.{i}{EXPERTS}=CPU" for i in range(int(n))]),
    ),
    Flag("-fit --fit", "on|off", lambda params, value: _assign(params, ("fit_params",), {"on": True, "off": False}[value])),
    number("-fitc --fit-ctx", "fit_params_min_ctx"),
    switch("-kvo --kv-offload", "no_kv_offload", off="-nkvo --no-kv-offload", inverted=True),
    switch("--op-offload", "no_op_offload", off="--no-op-offload", inverted=True),
    switch("--no-host", "no_host"),
    # loading
    choice("-lm --load-mode", "load_mode", "llama_load_mode", dio="DIRECT_IO", **{"mmap+mlock": "MMAP_MLOCK"}),
    choice("-lzm --lazy-mode", "lazy_mode", "llama_lazy_mode"),
    switch("--check-tensors", "check_tensors"),
    text("-mm --mmproj", "mmproj.path", "FILE"),
    switch("--mmproj-offload", "mmproj_use_gpu", off="--no-mmproj-offload"),
    number("--image-min-tokens", "image_min_tokens"),
    number("--image-max-tokens", "image_max_tokens"),
    Flag("--lora", "FILES", lambda params, value: _adapters(params, value, scaled=False)),
    Flag("--lora-scaled", "FILE:SCALE,…", lambda params, value: _adapters(params, value, scaled=True)),
    switch("--lora-init-without-apply", "lora_init_without_apply"),
    # speculative decoding
    text("-md --model-draft --spec-draft-model", "speculative.draft.mparams.path", "FILE"),
    Flag("-ngld --n-gpu-layers-draft --gpu-layers-draft --spec-draft-ngl", "N", _layers("speculative.draft.n_gpu_layers")),
    Flag("--spec-type", "NAMES", _speculation),
    number("--spec-draft-n-max", "speculative.draft.n_max"),
    number("--spec-draft-n-min", "speculative.draft.n_min"),
    fraction("--spec-draft-p-min --draft-p-min", "speculative.draft.p_min"),
    choice("-ctkd --cache-type-k-draft --spec-draft-type-k", "speculative.draft.cache_type_k", "ggml_type"),
    choice("-ctvd --cache-type-v-draft --spec-draft-type-v", "speculative.draft.cache_type_v", "ggml_type"),
    # chat
    switch("--jinja", "use_jinja", off="--no-jinja"),
    text("--chat-template", "chat_template"),
    Flag("--chat-template-file", "FILE", _template_file),
    Flag("--chat-template-kwargs", "JSON", lambda params, value: _template_values(params, json.loads(value))),
    Flag("-rea --reasoning", "on|off|auto", _reasoning),
    choice("--reasoning-format", "reasoning_format", "common_reasoning_format"),
    number("--reasoning-budget", "sampling.reasoning_budget_tokens"),
    text("--reasoning-budget-message", "sampling.reasoning_budget_message"),
    Flag("--reasoning-preserve", "", _preserve, "--no-reasoning-preserve"),
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
    Flag("--reranking --rerank", "", _rerank),
    choice("--pooling", "pooling_type", "llama_pooling_type"),
    number("--embd-normalize", "embd_normalize"),
    # position encoding
    choice("--rope-scaling", "rope_scaling_type", "llama_rope_scaling_type"),
    Flag("--rope-scale", "X", lambda params, value: _assign(params, ("rope_freq_scale",), 1 / float(value))),
    fraction("--rope-freq-base", "rope_freq_base"),
    fraction("--rope-freq-scale", "rope_freq_scale"),
    number("--yarn-orig-ctx", "yarn_orig_ctx"),
    fraction("--yarn-ext-factor", "yarn_ext_factor"),
    fraction("--yarn-attn-factor", "yarn_attn_factor"),
    fraction("--yarn-beta-slow", "yarn_beta_slow"),
    fraction("--yarn-beta-fast", "yarn_beta_fast"),
)


def main(arguments: list[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(usage())
    elif "--version" in arguments:
        print(version())
    else:
        return serve(arguments)
    return 0


def usage() -> str:
    lines = [f"{', '.join([*flag.names.split(), *flag.off.split()])} {flag.metavar}".rstrip() for flag in FLAGS]
    return "\n".join(["usage: llama_server --model FILE [flags of llama-server]", "", *lines, "--version", "-h, --help"])


def version() -> str:
    from importlib.metadata import version as installed

    return f"version: {installed('xllamacpp')} (xllamacpp)"


def serve(arguments: list[str]) -> int:
    stdout = _reserve_stdout()
    die_with_parent()
    import xllamacpp

    params = xllamacpp.CommonParams()
    try:
        parse(arguments, params)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    complete(params)
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # whatever it is, the model did not load
        print(f"error: the model could not be loaded: {error}", file=sys.stderr)
        return 1
    stopped = _catch_signals()
    port = int(server.listening_address.rsplit(":", 1)[1])
    os.write(stdout, json.dumps({"event": "ready", "port": port, "pid": os.getpid()}).encode() + b"\n")
    stopped.recv(1)
    del server
    return 0


def parse(arguments: list[str], params: Any) -> None:
    """Apply the arguments in order; raises UsageError."""
    table = {name: (flag, True) for flag in FLAGS for name in flag.names.split()}
    table |= {name: (flag, False) for flag in FLAGS for name in flag.off.split()}
    rest = iter(arguments)
    for argument in rest:
        name = argument.replace("_", "-") if argument.startswith("--") else argument
        if name not in table:
            raise UsageError(f"invalid argument: {argument}")
        flag, value = table[name]
        try:
            flag.apply(params, next(rest) if flag.metavar else value)
        except StopIteration:
            raise UsageError(f"{name} needs a value") from None
        except (KeyError, ValueError, OverflowError, OSError, TypeError) as error:
            raise UsageError(f"{name}: invalid value ({type(error).__name__}: {error})") from None


def complete(params: Any) -> None:
    """Set what llama-server's main program sets between reading its arguments and starting."""
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    if params.n_parallel < 0:
        params.n_parallel, params.kv_unified = 4, True
    if params.embedding:
        params.n_batch = min(params.n_batch, params.n_ubatch)
    if params.cpuparams_batch.n_threads < 0:
        params.cpuparams_batch.n_threads = params.cpuparams.n_threads
    params.default_template_kwargs = {"preserve_reasoning": "true", **params.default_template_kwargs}


def die_with_parent() -> None:
    """Ask the kernel to kill us when our parent dies; only Linux can, elsewhere the keeper does it."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def _reserve_stdout() -> int:
    """Return a descriptor of stdout for us alone: what the library prints there goes to stderr."""
    ours = os.dup(1)
    os.dup2(2, 1)
    return ours


def _catch_signals() -> socket.socket:
    """Return a socket that SIGTERM or SIGINT makes readable.

    A wait that the signal's arrival merely interrupts could miss one that comes just before it.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signal.signal(number, signal.SIG_DFL))  # a second one kills
    return reader


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
