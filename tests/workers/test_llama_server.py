"""The bundled llama.cpp child: its flags on the library's real parameters, and the real program from start to end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xllamacpp

from llamarunner.config import bundled
from llamarunner.workers.llama_flags import FLAGS, Flag, UsageError, parse
from llamarunner.workers.llama_server import parameters
from tests.conftest import alive

DEMO_CHAT = str(bundled("models") / "demo-chat.gguf")
PROGRAM = (sys.executable, "-m", "llamarunner.workers.llama_server")
SERVE = (*PROGRAM, "--model", DEMO_CHAT, "--port", "0")
POSIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="signals and FIFOs of POSIX")

# A value that each kind of flag accepts, where "1" would not do.
SAMPLES = {
    "--alias": "a,b",
    "--cache-type-k": "q8_0",
    "--cache-type-v": "q8_0",
    "--flash-attn": "on",
    "--numa": "isolate",
    "--split-mode": "row",
    "--override-tensor": "exps=CPU",
    "--fit": "off",
    "--load-mode": "mmap+mlock",
    "--lazy-mode": "off",
    "--lora-scaled": "adapter.gguf:0.5",
    "--spec-type": "draft-simple,ngram-mod",
    "--cache-type-k-draft": "q8_0",
    "--cache-type-v-draft": "q8_0",
    "--chat-template-file": __file__,
    "--chat-template-kwargs": '{"a": 1}',
    "--reasoning": "off",
    "--reasoning-format": "none",
    "--pooling": "mean",
    "--rope-scaling": "yarn",
}


def parsed(*arguments: str) -> Any:
    params = xllamacpp.CommonParams()
    parse(list(arguments), params)
    return params


def state(value: Any) -> Any:
    """All attributes of the parameters, so that any change shows."""
    if not type(value).__module__.startswith("xllamacpp") or isinstance(value, int):
        return value
    names = (name for name in dir(value) if not name.startswith("_"))
    return {name: state(attribute) for name in names if not callable(attribute := getattr(value, name))}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names.split()[-1])
def test_every_flag_is_honoured_by_the_library(flag: Flag) -> None:
    """Each name of a flag changes the parameters; a switch that is on by default changes them when it is off."""
    name = next(name for name in flag.names.split() if name.startswith("--"))
    sample = [SAMPLES.get(name, "17")] if flag.metavar else []
    unchanged = state(xllamacpp.CommonParams())
    changed = [state(parsed(name, *sample)) != unchanged for name in flag.names.split()]
    changed_off = [state(parsed(name)) != unchanged for name in flag.off.split()]
    assert all(changed) or (changed_off and all(changed_off))


def test_arguments_reach_their_parameters() -> None:
    params = parsed(
        *("-m", "model.gguf", "--alias", "one,two", "-c", "4096", "-np", "3", "-kvu", "--cache-ram", "-1"),
        *("--threads", "5", "-ngl", "all", "-fa", "off", "-ctk", "q4_0", "--load-mode", "dio", "--tensor-split", "3,1"),
        *("-md", "draft.gguf", "--spec-draft-n-max", "6", "--reasoning-budget", "0", "--no-jinja", "--rope-scale", "4"),
    )
    assert params.model.path == "model.gguf"
    assert params.model_alias == {"one", "two"}
    assert (params.n_ctx, params.n_parallel, params.kv_unified, params.cache_ram_mib) == (4096, 3, True, -1)
    assert (params.cpuparams.n_threads, params.n_gpu_layers) == (5, -2)
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    assert params.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q4_0
    assert params.load_mode == xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_DIRECT_IO
    assert params.tensor_split[:3] == [3, 1, 0]
    assert (params.speculative.draft.mparams.path, params.speculative.draft.n_max) == ("draft.gguf", 6)
    assert (params.sampling.reasoning_budget_tokens, params.use_jinja, params.rope_freq_scale) == (0, False, 0.25)


def test_adapters_are_read_as_quoted_lists() -> None:
    adapters = parsed("--lora", '"a,b.gguf",c.gguf', "--lora-scaled", "C:\\d.gguf:0.5").lora_adapters
    assert [(a.path, a.scale) for a in adapters] == [("a,b.gguf", 1), ("c.gguf", 1), ("C:\\d.gguf", 0.5)]


def test_experts_of_the_first_blocks_stay_in_main_memory() -> None:
    rules = parsed("--n-cpu-moe", "2", "--override-tensor", "x=CPU").tensor_buft_overrides.split(",")
    assert [rule.partition("=")[2] for rule in rules] == ["CPU"] * 3
    assert re.fullmatch(rules[1].partition("=")[0] + r".*", "blk.1.ffn_up_exps.weight")


def test_the_last_one_wins_and_underscores_are_dashes() -> None:
    assert parsed("--ctx-size", "1", "--ctx_size", "2").n_ctx == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--frobnicate"], "invalid argument: --frobnicate"),
        (["stray"], "invalid argument: stray"),
        (["--ctx"], "invalid argument: --ctx"),
        (["--ctx-size"], "--ctx-size needs a value"),
        (["--ctx-size", "many"], "invalid value of --ctx-size: 'many' (ValueError)"),
        (["--flash-attn", "maybe"], "invalid value of --flash-attn: 'maybe' (KeyError)"),
        (["--chat-template-file", "/nowhere"], "invalid value of --chat-template-file: '/nowhere' (FileNotFoundError)"),
        (["--tensor-split", ",".join("1" * 129)], "invalid value of --tensor-split"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], complaint: str) -> None:
    with pytest.raises(UsageError) as told:
        parsed(*arguments)
    assert str(told.value).startswith(complaint)
    assert "\n" not in str(told.value)


def test_defaults_are_those_of_the_native_program() -> None:
    """What llama-server's main program sets, and the library does not."""
    params = parameters(["-m", "x", "--threads", "3"], xllamacpp.CommonParams())
    assert (params.n_parallel, params.kv_unified, params.cpuparams_batch.n_threads) == (4, True, 3)
    assert (params.use_jinja, params.default_template_kwargs) == (True, {"preserve_reasoning": "true"})
    assert params.reasoning_format == xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
    assert parameters(["-m", "x", "--embeddings"], xllamacpp.CommonParams()).n_batch == 512
    assert not parameters(["-m", "x", "-np", "2"], xllamacpp.CommonParams()).kv_unified


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A server that is ready, and its one line."""
    with subprocess.Popen(
        (*SERVE, *arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_says_ready_in_exactly_one_line_and_ends_with_code_0() -> None:
    with serving() as (process, ready):
        assert ready == {"event": "ready", "port": ready["port"], "pid": process.pid}
        with urllib.request.urlopen(f"http://127.0.0.1:{ready['port']}/health") as answer:
            assert answer.status == 200
        process.terminate()
        assert process.communicate(timeout=10)[0] == ""
        assert process.returncode == 0


@POSIX_ONLY
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_moment_of_readiness_is_not_lost(number: int) -> None:
    for _ in range(5):
        with serving() as (process, _ready):
            process.send_signal(number)
            assert process.wait(timeout=10) == 0


@POSIX_ONLY
def test_sigterm_does_not_wait_for_open_streams() -> None:
    body = {"prompt": "Once", "max_tokens": 20_000, "stream": True, "ignore_eos": True}
    with serving("--ctx-size", "30000") as (process, ready):
        request = urllib.request.Request(
            f"http://127.0.0.1:{ready['port']}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as stream:
            assert stream.readline().startswith(b"data:")
            process.terminate()
            assert process.wait(timeout=1) == 0


@POSIX_ONLY
def test_sigterm_while_loading_ends_it_by_the_signal(tmp_path: Path) -> None:
    """A model on a pipe that nobody writes to loads for ever, inside the library."""
    os.mkfifo(tmp_path / "slow.gguf")
    command = (*PROGRAM, "--model", str(tmp_path / "slow.gguf"), "--port", "0")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("loading model" in line for line in process.stderr)
        process.terminate()
        assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_model_that_cannot_be_loaded_is_exit_code_1_and_a_reason(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a model")
    result = run(*PROGRAM, "--model", str(bad))
    assert (result.returncode, result.stdout) == (1, "")
    assert "invalid magic" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: the model could not be loaded")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["--frobnicate"], []])
def test_wrong_usage_is_exit_code_2_and_one_line(arguments: list[str]) -> None:
    result = run(*PROGRAM, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr)


def test_what_the_library_prints_never_reaches_stdout() -> None:
    """It lists the buffer types there when it does not know one."""
    result = run(*PROGRAM, "--model", DEMO_CHAT, "--override-tensor", "x=NOPE")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Available buffer types" in result.stderr


def test_version_names_the_library() -> None:
    assert run(*PROGRAM, "--version").stdout == f"version: {xllamacpp.__version__} (xllamacpp)\n"


def test_starts_without_what_it_does_not_need() -> None:
    """Neither the library for its help, nor the server's own heavy modules to serve."""
    imports = "-X", "importtime", *PROGRAM[1:]
    assert "xllamacpp" not in run(sys.executable, *imports, "--help").stderr
    loaded = run(sys.executable, *imports, "--model", "/nowhere").stderr
    assert "xllamacpp" in loaded
    assert not re.search(r"\| +(aiohttp|asyncio|pydantic|argparse|llamarunner\.(config|catalog|fleet))\b", loaded)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_dies_with_its_parent() -> None:
    parent = f"import subprocess; p = subprocess.Popen({SERVE!r}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen((sys.executable, "-c", parent), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        assert json.loads(process.stdout.readline())["event"] == "ready"
        process.kill()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)
