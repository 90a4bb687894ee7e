"""Launch descriptions: what each runtime is told, for builds new and old, and which one is chosen."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.errors import ModelFailed
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.runtimes import Build, choose, describe, environment, flags_of
from llamarunner.fleet.runtimes.llama_server import context_size

CHAT = ModelEntry("tiny", Path("/models/tiny.gguf"), architecture="llama", context_length=4096)
EMBEDDER = dataclasses.replace(CHAT, architecture="nomic-bert", capabilities=frozenset({Capability.EMBEDDING}))
NOT_FLAGS = {"extra_args", "runtime", "ttl_seconds", "pinned"}

NEW_HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context
                                        --kv-unified-per-slot has its own say
-lm,   --load-mode MODE                 model loading mode (default: auto)
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
--spec-draft-n-max N                    number of tokens to draft
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
"""
ARGPARSE_HELP = """usage: __main__.py [-h] [--model MODEL]
                   [--n_ctx N_CTX]

options:
  -h, --help            show this help message and exit
  --model MODEL         The path to the model.
  --n_ctx N_CTX         The context size. (default: 2048)
"""


def names(*settings: str) -> frozenset[str]:
    return frozenset("--" + name.replace("_", "-") for name in settings)


ALWAYS = names(
    "model", "alias", "host", "port", "metrics", "offline", "lora_scaled", "no_jinja", "no_kv_unified", "seed"
)
SETTINGS = names(*(set(ModelSettings.model_fields) - NOT_FLAGS))
NEW = Build(
    "llama-server",
    ("/bin/llama-server",),
    "b9000",
    ALWAYS | SETTINGS | names("no_ui", "embeddings", "reranking", "spec_type"),
)
OLD = dataclasses.replace(
    NEW,
    version="b3000",
    flags=NEW.flags
    - names("no_ui", "load_mode", "spec_draft_n_max", "spec_type", "cache_ram", "reasoning", "embeddings")
    | names("no_webui", "no_mmap", "mlock", "draft_max", "embedding"),
)
PYTHON_FLAGS = (
    "--model --model_alias --host --port --interrupt_requests --logits_all --embedding --n_ctx --n_gpu_layers "
    "--use_mlock --use_mmap --n_threads --type_k --lora_path --clip_model_path --chat_format --tensor_split "
    "--flash_attn --seed"
)
PYTHON = Build("llama-cpp-python", ("python", "-m", "llama_cpp.server"), "0.3", frozenset(PYTHON_FLAGS.split()))


def launch(build: Build = NEW, task: Task = Task.GENERATE, entry: ModelEntry = CHAT, **settings: Any) -> Launch:
    return describe(entry, ModelSettings.model_validate(settings), task, "secret", build)


def told(launch: Launch, flag: str) -> str | None:
    """The argument after a flag; None if the flag is not there."""
    return launch.argv[launch.argv.index(flag) + 1] if flag in launch.argv else None


@pytest.mark.parametrize("build", [NEW, PYTHON], ids=lambda build: build.kind)
def test_the_key_is_in_the_environment_and_not_in_the_arguments(build: Build) -> None:
    described = launch(build)
    assert "secret" in described.env.values()
    assert not any("secret" in argument for argument in described.argv)
    assert described.api_key == "secret"


@pytest.mark.parametrize("build", [NEW, PYTHON], ids=lambda build: build.kind)
def test_listens_on_loopback_at_a_port_of_its_own_choice(build: Build) -> None:
    assert (told(launch(build), "--host"), told(launch(build), "--port")) == ("127.0.0.1", "0")


def test_what_is_always_passed() -> None:
    described = launch()
    expected = {"--alias": "tiny", "--ctx-size": "8192", "--parallel": "4", "--cache-ram": "512"}
    assert {flag: told(described, flag) for flag in expected} == expected
    assert {"--no-ui", "--metrics", "--offline", "--kv-unified", "--jinja"} <= set(described.argv)
    assert described.argv[0] == "/bin/llama-server"
    assert described.warnings == ()


@pytest.mark.parametrize(
    ("trained", "setting", "passed", "shared"),
    [
        (131072, None, "8192", 8192),
        (None, None, "8192", 8192),
        (512, None, "2048", 2048),  # for each slot
        (131072, 32768, "32768", 32768),
        (131072, 0, "0", 131072),
    ],
)
def test_context_is_the_models_own_up_to_a_limit_that_a_setting_lifts(
    trained: int | None, setting: int | None, passed: str, shared: int
) -> None:
    entry = dataclasses.replace(CHAT, context_length=trained)
    assert told(launch(entry=entry, ctx_size=setting), "--ctx-size") == passed
    assert context_size(entry, ModelSettings(ctx_size=setting)) == shared


def test_settings_become_flags_of_the_same_name() -> None:
    settings: dict[str, Any] = {
        "threads": 3,
        "flash_attn": "on",
        "device": ["CUDA0", "CUDA1"],
        "tensor_split": [3, 1.5],
        "rope_freq_base": 1234567.5,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    described = launch(**settings)
    assert told(described, "--threads") == "3"
    assert told(described, "--flash-attn") == "on"
    assert told(described, "--device") == "CUDA0,CUDA1"
    assert told(described, "--tensor-split") == "3.0,1.5"
    assert told(described, "--rope-freq-base") == "1234567.5"
    assert json.loads(told(described, "--chat-template-kwargs") or "") == {"enable_thinking": False}


def test_what_a_person_sets_replaces_what_we_would_choose() -> None:
    described = launch(parallel=1, cache_ram=0, kv_unified=False, jinja=False)
    assert (told(described, "--parallel"), told(described, "--cache-ram")) == ("1", "0")
    assert {"--no-kv-unified", "--no-jinja"} <= set(described.argv)
    assert described.argv.count("--parallel") == 1
    assert not {"--kv-unified", "--jinja"} & set(described.argv)


def test_adapters_at_full_and_other_scales(tmp_path: Path) -> None:
    plain, odd = tmp_path / "a.gguf", tmp_path / 'b,"c.gguf'
    described = launch(lora=[str(plain), {"path": str(odd), "scale": 0.5}])
    assert told(described, "--lora") == str(plain)
    assert told(described, "--lora-scaled") == f'"{tmp_path}/b,""c.gguf:0.5"'


def test_the_adapters_of_a_model_are_applied_unless_the_person_names_others() -> None:
    entry = dataclasses.replace(CHAT, adapters=(Path("/models/a.gguf"), Path("/models/b.gguf")))
    assert told(launch(entry=entry), "--lora") == "/models/a.gguf,/models/b.gguf"
    assert told(launch(entry=entry, lora=["/other.gguf"]), "--lora") == "/other.gguf"
    assert told(launch(entry=entry, task=Task.EMBED), "--lora") is None


def test_the_projector_found_beside_the_model_serves_generation_only() -> None:
    entry = dataclasses.replace(CHAT, mmproj=Path("/models/mmproj.gguf"))
    assert told(launch(entry=entry), "--mmproj") == "/models/mmproj.gguf"
    assert told(launch(entry=entry, mmproj="/other.gguf"), "--mmproj") == "/other.gguf"
    assert told(launch(entry=entry, task=Task.EMBED), "--mmproj") is None


def test_a_draft_model_is_also_put_to_work() -> None:
    assert told(launch(model_draft="/draft.gguf"), "--spec-type") == "draft-simple"
    assert (
        told(launch(model_draft="/draft.gguf", extra_args=["--spec-type", "draft-mtp"]), "--spec-type") == "draft-mtp"
    )
    assert told(launch(), "--spec-type") is None
    assert "--model-draft" not in launch(model_draft="/draft.gguf", task=Task.EMBED).argv


@pytest.mark.parametrize(
    ("task", "entry", "switch", "pooling", "batch"),
    [
        (Task.EMBED, CHAT, "--embeddings", "last", None),
        (Task.EMBED, EMBEDDER, "--embeddings", None, "4096"),
        (Task.RERANK, CHAT, "--reranking", None, "2048"),
        (Task.RERANK, EMBEDDER, "--reranking", None, "4096"),
    ],
)
def test_embedding_and_reranking(
    task: Task, entry: ModelEntry, switch: str, pooling: str | None, batch: str | None
) -> None:
    described = launch(task=task, entry=entry)
    assert switch in described.argv
    assert told(described, "--pooling") == pooling
    assert (told(described, "--batch-size"), told(described, "--ubatch-size")) == (batch, batch)
    assert told(described, "--cache-ram") == "0"


def test_pooling_is_for_embedding_only() -> None:
    assert told(launch(pooling="mean", task=Task.EMBED), "--pooling") == "mean"
    assert told(launch(pooling="mean", task=Task.RERANK), "--pooling") is None
    assert told(launch(pooling="mean"), "--pooling") is None


def test_an_old_build_is_spoken_to_in_its_own_words() -> None:
    described = launch(OLD, spec_draft_n_max=5, load_mode="none", extra_args=["--seed", "-1"])
    assert "--no-webui" in described.argv
    assert told(described, "--draft-max") == "5"
    assert "--no-mmap" in described.argv
    assert described.argv[-2:] == ("--seed", "-1")
    assert "--embedding" in launch(OLD, task=Task.EMBED).argv


def test_a_comfort_that_a_build_lacks_is_left_out_with_a_warning() -> None:
    described = launch(OLD)
    assert "--cache-ram" not in described.argv
    assert described.warnings == ("llama-server b3000 does not know --cache-ram; left out",)


@pytest.mark.parametrize(
    "settings",
    [{"reasoning": "off"}, {"load_mode": "dio"}, {"cache_ram": 100}, {"extra_args": ["--moe-cache-mib", "5"]}],
)
def test_what_a_person_asks_for_and_a_build_lacks_is_refused_before_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelFailed, match=next(iter(settings))):
        launch(OLD, **settings)


WORDS: dict[str, Any] = {
    "cache_type_k": "q8_0",
    "cache_type_v": "q8_0",
    "chat_template_kwargs": {"a": 1},
    "device": ["CUDA0"],
    "flash_attn": "on",
    "load_mode": "mlock",
    "lora": ["/adapter.gguf"],
    "override_kv": ["a.b=int:1"],
    "override_tensor": ["a=CPU"],
    "reasoning": "on",
    "reasoning_format": "none",
    "rope_scaling": "yarn",
    "split_mode": "row",
    "tensor_split": [1],
    **dict.fromkeys(("chat_template", "chat_template_file", "mmproj", "model_draft"), "/file"),
    **dict.fromkeys(("jinja", "kv_offload", "kv_unified", "swa_full"), True),
}


@pytest.mark.parametrize("name", sorted(set(ModelSettings.model_fields) - NOT_FLAGS - {"pooling"}))
def test_no_setting_is_forgotten(name: str) -> None:
    assert "--" + name.replace("_", "-") in launch(**{name: WORDS.get(name, 1)}).argv


def test_announcements_of_several_years_tell_the_port() -> None:
    announces = launch().announces
    lines = (
        "0.00.026.534 I srv  llama_server: listening on http://127.0.0.1:43245",
        "main: server is listening on http://127.0.0.1:43245 - starting the main loop",
        "main: HTTP server is listening, hostname: 127.0.0.1, port: 43245, http threads: 3",
    )
    assert [match["port"] if (match := announces.search(line)) else None for line in lines] == ["43245"] * 3
    assert launch().health == "/health"


def test_the_bundled_worker_says_itself_that_it_is_ready() -> None:
    described = launch(dataclasses.replace(NEW, kind="xllamacpp"))
    match = described.announces.search('{"event": "ready", "port": 1234, "pid": 5}')
    assert match
    assert match["port"] == "1234"
    assert described.announces.search("srv init: listening on http://127.0.0.1:1234") is None
    assert described.health is None
    assert described.argv[1:] == launch().argv[1:]


def test_llama_cpp_python_gets_its_own_names() -> None:
    described = launch(
        PYTHON, threads=3, cache_type_k="q8_0", n_gpu_layers="all", flash_attn="on", load_mode="mmap+mlock", lora=["/l"]
    )
    expected = {
        "--n_ctx": "4096",
        "--n_threads": "3",
        "--type_k": "8",
        "--n_gpu_layers": "-1",
        "--flash_attn": "true",
        "--use_mmap": "true",
        "--use_mlock": "true",
        "--lora_path": "/l",
        "--interrupt_requests": "false",
        "--logits_all": "false",
        "--model_alias": "tiny",
    }
    assert {flag: told(described, flag) for flag in expected} == expected
    assert described.env == {"API_KEY": "secret"}
    match = described.announces.search("INFO:     Uvicorn running on http://127.0.0.1:1234 (Press CTRL+C to quit)")
    assert match
    assert match["port"] == "1234"


def test_llama_cpp_python_sees_and_embeds_with_models_made_for_it() -> None:
    entry = dataclasses.replace(EMBEDDER, mmproj=Path("/m.gguf"))
    assert told(launch(PYTHON, entry=entry), "--clip_model_path") == "/m.gguf"
    assert told(launch(PYTHON, entry=entry), "--chat_format") == "mtmd"
    assert told(launch(PYTHON, task=Task.EMBED, entry=entry), "--embedding") == "true"
    assert told(launch(PYTHON, task=Task.EMBED, entry=entry), "--clip_model_path") is None


@pytest.mark.parametrize("task", [Task.EMBED, Task.RERANK])
def test_llama_cpp_python_refuses_what_it_cannot_do_with_a_chat_model(task: Task) -> None:
    with pytest.raises(ModelFailed, match=f"cannot {task}"):
        launch(PYTHON, task=task)


@pytest.mark.parametrize(
    "settings",
    [
        {"chat_template": "x"},
        {"model_draft": "/d.gguf"},
        {"load_mode": "dio"},
        {"lora": ["/a", "/b"]},
        {"reasoning_format": "none"},
        {"extra_args": ["--no-perf"]},
        {"threads_batch": 2},
    ],
    ids=str,
)
def test_llama_cpp_python_refuses_settings_that_it_lacks(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelFailed, match=next(iter(settings))):
        launch(PYTHON, **settings)


def test_llama_cpp_python_warns_of_what_has_no_effect() -> None:
    described = launch(PYTHON, parallel=8, tensor_split=[1, 2])
    assert described.warnings == ("llama-cpp-python has no parallel; left out",)
    assert described.argv[-3:] == ("--tensor_split", "1.0", "2.0")


@pytest.mark.parametrize(
    ("wanted", "found", "kind", "why"),
    [
        ("auto", ["xllamacpp", "llama-server"], "llama-server", "it was found on this machine"),
        ("auto", ["xllamacpp", "llama-cpp-python"], "xllamacpp", "no llama-server was found"),
        ("xllamacpp", ["xllamacpp", "llama-server"], "xllamacpp", "it is chosen in the settings"),
        ("llama-cpp-python", ["llama-cpp-python"], "llama-cpp-python", "it is chosen in the settings"),
    ],
)
def test_choice_of_the_runtime(wanted: str, found: list[str], kind: str, why: str) -> None:
    assert choose(wanted, found) == (kind, why)


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("llama-server", "runtime.binary"), ("llama-cpp-python", "pip install"), ("auto", "pip install")],
)
def test_a_runtime_that_is_not_here_comes_with_a_hint(wanted: str, hint: str) -> None:
    with pytest.raises(ModelFailed, match=hint):
        choose(wanted, [])


def test_children_see_devices_and_paths_but_no_secrets() -> None:
    environ = {
        "PATH": "/bin",
        "Path": "C:/bin",
        "HOME": "/home/me",
        "LC_ALL": "C",
        "LD_LIBRARY_PATH": "/cuda",
        "CUDA_VISIBLE_DEVICES": "1",
        "GGML_CUDA_NO_PINNED": "1",
        "HIP_VISIBLE_DEVICES": "0",
    }
    secrets = {
        "HF_TOKEN": "t",
        "HTTPS_PROXY": "p",
        "LLAMA_ARG_HOST": "0.0.0.0",
        "HOST": "h",
        "PYTHONPATH": "/x",
        "LD_PRELOAD": "y",
    }
    assert environment(environ | secrets) == environ


def test_flags_are_read_from_the_help() -> None:
    flags = flags_of(NEW_HELP)
    assert {"-m", "--model", "-c", "--ctx-size", "--load-mode", "--no-webui", "-ot", "--override-tensor"} <= flags
    assert "--spec-draft-n-max" in flags
    assert not {"--draft-max", "--kv-unified-per-slot", "--spec-ngram-mod-n-max"} & flags
    assert flags_of(ARGPARSE_HELP) == {"-h", "--help", "--model", "--n_ctx"}


FLAG_NAMES = st.from_regex(r"\A--[a-z][a-z0-9]*(-[a-z0-9]+){0,3}\Z")


@given(
    st.lists(st.lists(FLAG_NAMES, min_size=1, max_size=4), max_size=20),
    st.sampled_from(["", " N", " <a-b,c-d>", " [on|off]"]),
)
def test_every_listed_flag_is_found_and_no_other(rows: list[list[str]], value: str) -> None:
    lines = [f"{',  '.join(row)}{value}    sets --nothing-else (env: X)\n{'':40}--neither-this" for row in rows]
    assert flags_of("\n".join(lines)) == {flag for row in rows for flag in row}


@given(st.text())
def test_any_help_text_is_read(text: str) -> None:
    assert all(flag.startswith("-") for flag in flags_of(text))
