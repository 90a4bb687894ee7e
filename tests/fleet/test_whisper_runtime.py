"""How the worker of speech models is started, and what the supervisor makes of its settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.config import ModelSettings, Settings, SpeechSettings
from llamarunner.fleet.launch import Task
from llamarunner.fleet.launcher import Launcher
from llamarunner.fleet.lease import Instance
from llamarunner.fleet.runtimes import whisper
from llamarunner.fleet.subject import changed

MB = 1 << 20


def entry(size: int = 1500 * MB) -> ModelEntry:
    path = Path("/models/faster-whisper-medium/model.bin")
    hears = frozenset({Capability.TRANSCRIPTION})
    return ModelEntry("whisper-medium", path, size=size, capabilities=hears, format="CTranslate2")


def options(audio: SpeechSettings, size: int = 1500 * MB) -> dict[str, str]:
    launch = whisper.describe(entry(size), audio, "secret", ("run", "it"), {"PATH": "/bin"})
    assert launch.argv[:2] == ("run", "it")
    return dict(zip(launch.argv[2::2], launch.argv[3::2], strict=True))


def test_settings_become_options() -> None:
    audio = SpeechSettings(device="cuda", compute_type="float16", threads=3, slots=2, batch_size=16, beam_size=1)
    assert options(audio) == {
        "--model": "/models/faster-whisper-medium",
        "--port": "0",
        "--device": "cuda",
        "--compute-type": "float16",
        "--threads": "3",
        "--slots": "2",
        "--batch-size": "16",
        "--beam-size": "1",
    }


@pytest.mark.parametrize(("size", "threads", "batch"), [(2 * MB, "1", "1"), (75 * MB, "0", "4")])
def test_tiny_models_have_one_thread_and_no_batches(size: int, threads: str, batch: str) -> None:
    chosen = options(SpeechSettings(), size)
    assert (chosen["--threads"], chosen["--batch-size"]) == (threads, batch)


def test_the_secret_is_in_the_environment_and_the_network_is_not_asked() -> None:
    launch = whisper.describe(entry(), SpeechSettings(), "secret", ("run",), {"PATH": "/bin"})
    assert "secret" not in " ".join(launch.argv)
    assert launch.env["WHISPER_API_KEY"] == "secret"
    assert launch.env["PATH"] == "/bin"
    assert launch.env["HF_HUB_OFFLINE"] == "1"
    assert launch.env["ORT_DISABLE_TELEMETRY"] == "1"
    assert launch.announces.search('{"event": "ready", "port": 4711, "pid": 1}')


def test_the_launcher_needs_no_llama_cpp_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    launcher = Launcher(Settings.model_validate({"audio": {"beam_size": 2}}))
    first, second = (launcher(entry(), Task.TRANSCRIBE, ModelSettings()) for _ in range(2))
    assert first.runtime == "faster-whisper"
    assert first.argv[first.argv.index("--beam-size") + 1] == "2"
    assert first.api_key != second.api_key


def test_one_model_may_be_run_otherwise() -> None:
    audio = {"beam_size": 2, "models": {"whisper-medium": {"beam_size": 4, "slots": 3}, "whisper-base": {"slots": 9}}}
    argv = Launcher(Settings.model_validate({"audio": audio}))(entry(), Task.TRANSCRIBE, ModelSettings()).argv
    assert argv[argv.index("--beam-size") + 1] == "4"
    assert argv[argv.index("--slots") + 1] == "3"


@pytest.mark.parametrize(
    ("audio", "renews"),
    [
        ({"threads": 2}, True),
        ({"models": {"whisper-medium": {"threads": 2}}}, True),
        ({"models": {"whisper-base": {"threads": 2}}}, False),
        ({"text_in_events": True, "max_duration_hours": 1}, False),
    ],
)
def test_only_what_its_process_is_started_with_renews_it(audio: dict[str, object], renews: bool) -> None:
    instance = Instance(entry(), Task.TRANSCRIBE, ModelSettings())
    assert changed(Settings(), Settings.model_validate({"audio": audio}), instance) is renews


def test_memory_grows_with_weights_batches_and_slots() -> None:
    needed = [
        whisper.memory_needed(entry(size), SpeechSettings(batch_size=batch, slots=slots))
        for size, batch, slots in ((75 * MB, 1, 1), (75 * MB, 1, 2), (75 * MB, 4, 2), (3000 * MB, 4, 2))
    ]
    assert needed == sorted(set(needed))
    assert needed[0] > 245 * MB  # measured
    assert needed[3] < 6 * 1024 * MB
