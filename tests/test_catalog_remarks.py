"""What is told about settings that the models do not bear out."""

from __future__ import annotations

from pathlib import Path

from llamarunner.catalog import Catalog, remarks
from llamarunner.config import Discover, Settings

NOWHERE = Discover(ollama=False, lmstudio=False, huggingface=False, llama_cpp=False)


def told(home: Path, **parts: object) -> list[str]:
    catalog = {"discover": NOWHERE.model_dump(), "library": str(home), **parts.pop("catalog", {})}  # type: ignore[dict-item]
    settings = Settings.model_validate({"catalog": catalog, **parts})
    known = Catalog(settings)
    known.scan()
    return list(remarks(settings, known))


def test_names_that_no_model_has(tmp_path: Path) -> None:
    aliases = {"gpt-4": "demo-chat", "fast": "gpt-4", "whisper": "base", "odd name": "fast", "chain": "whisper"}
    said = told(
        tmp_path,
        catalog={"aliases": aliases},
        supervisor={"preload": ["fast", "qwen3"]},
        audio={"default_model": "whisper-large"},
    )
    end = "and there is no such model"
    assert said == [
        f"$.catalog.aliases.whisper names base, {end}",
        f"$.catalog.aliases.chain names whisper, {end}",
        f"$.supervisor.preload[1] names qwen3, {end}",
        f"$.audio.default_model names whisper-large, {end}",
    ]


def test_settings_of_llama_cpp_for_a_speech_model(tmp_path: Path) -> None:
    models = {
        "Demo-Whisper": {"ctx_size": 4096, "device": ["CUDA0"], "ttl_seconds": 60, "pinned": True},
        "demo-*": {"ctx_size": 2048},
        "demo-chat": {"ctx_size": 1024},
        "not-here": {"ctx_size": 1024},
    }
    said = told(tmp_path, models=models)
    assert [line.split(" ")[0] for line in said] == ["$.models.Demo-Whisper.ctx_size", "$.models.Demo-Whisper.device"]
    assert all("audio.models" in line for line in said)


def test_nothing_is_told_of_settings_that_fit(tmp_path: Path) -> None:
    assert told(tmp_path, supervisor={"preload": ["demo-chat"]}, audio={"default_model": "demo-whisper"}) == []
