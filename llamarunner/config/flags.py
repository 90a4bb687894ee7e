"""Which of llama.cpp's flags may not stand in `extra_args`, and why.

Some would open the machine (`--rpc`, `--tools`), some would take the child out of our hands (`--port`, `--api-key`),
some end it at once (`--help`), and those with a setting of their own have their home there.
"""

from __future__ import annotations

import re
from collections.abc import Container

_OURS = """
    --host --port --reuse-port --api-key --api-key-file --api-prefix --alias -a --tags --model -m --path --offline
    --timeout -to --sleep-idle-seconds --server-base --metrics --slots --no-slots --no-mmproj --no-mmproj-auto
"""
_OPENS = """
    --rpc --tools --tools-runtime --agent -ag --props --slot-save-path --media-path --log-prompts-dir
    --lookup-cache-dynamic -lcd --video-ffmpeg-dir --ui --webui
"""
_DOWNLOADS = """
    -hf -hfr -hff -hft -hfd -hfrd -hfv -hfrv -hffv --docker-repo -dr --model-url -mu --mmproj-url -mmu --spec-draft-hf
"""
_TASKS = "--embedding --embeddings --reranking --rerank"
_ENDS = """
    --help -h --usage --version --license --list-devices --cache-list -cl --completion-bash --fit-print -fitp
"""

_REASONS: dict[str, str] = {
    "LlamaRunner sets it itself": _OURS,
    "it opens this machine to clients": _OPENS,
    "models come from the catalog, not from the network": _DOWNLOADS,
    "LlamaRunner starts one process for each task": _TASKS,
    "it ends the program instead of serving": _ENDS,
    "LlamaRunner reads the log": "-lv -v --verbose --verbosity",
}
_RESERVED = {flag: reason for reason, flags in _REASONS.items() for flag in flags.split()}
_RESERVED_FAMILIES: dict[str, str] = {
    r"--(no-)?(mcp|ui|webui|cors|ssl|agent|tools)-.*": "it opens this machine to clients",
    r"--(no-)?models-.*": "LlamaRunner sets it itself",
    r"--hf-.*|--(?!spec-).+-(default|spec)": "models come from the catalog, not from the network",
    r"--(no-)?log-.*": "LlamaRunner reads the log",
}

SETTING_OF_FLAG: dict[str, str] = {
    "-c": "ctx_size",
    "-np": "parallel",
    "-kvu": "kv_unified",
    "-no-kvu": "kv_unified",
    "-ctk": "cache_type_k",
    "-ctv": "cache_type_v",
    "-cram": "cache_ram",
    "-t": "threads",
    "-tb": "threads_batch",
    "-b": "batch_size",
    "-ub": "ubatch_size",
    "-fa": "flash_attn",
    "-ngl": "n_gpu_layers",
    "--gpu-layers": "n_gpu_layers",
    "-dev": "device",
    "-sm": "split_mode",
    "-ts": "tensor_split",
    "-mg": "main_gpu",
    "-ncmoe": "n_cpu_moe",
    "-ot": "override_tensor",
    "-kvo": "kv_offload",
    "-nkvo": "kv_offload",
    "-lm": "load_mode",
    "--mlock": "load_mode",
    "--mmap": "load_mode",
    "--no-mmap": "load_mode",
    "-mm": "mmproj",
    "--lora-scaled": "lora",
    "-md": "model_draft",
    "--spec-draft-model": "model_draft",
    "-ngld": "n_gpu_layers_draft",
    "--gpu-layers-draft": "n_gpu_layers_draft",
    "--spec-draft-ngl": "n_gpu_layers_draft",
    "-rea": "reasoning",
}


def refuse_reserved(argument: str, settings: Container[str]) -> str:
    """Return the argument, or raise ValueError if it is a flag that has no place in `extra_args`.

    `settings` are the names of the settings that a model has.
    """
    flag = _as_parsed(argument)
    if not flag.startswith("-"):
        return argument
    if re.search(r"\s", flag):
        raise ValueError("a flag and its value are two elements of the list")
    if reason := _reason(flag):
        raise ValueError(f"{flag} is reserved: {reason}")
    setting = SETTING_OF_FLAG.get(flag) or re.sub("^--(no-)?", "", flag).replace("-", "_")
    if setting in settings:
        raise ValueError(f'{flag} has a setting of its own: "{setting}"')
    return argument


def _reason(flag: str) -> str | None:
    families = (why for pattern, why in _RESERVED_FAMILIES.items() if re.fullmatch(pattern, flag))
    return _RESERVED.get(flag) or next(families, None)


def _as_parsed(argument: str) -> str:
    """Name the flag as llama.cpp's parser will, which takes `--api_key` for `--api-key`."""
    flag = argument.split("=", 1)[0].strip()
    return flag.replace("_", "-") if flag.startswith("--") else flag
