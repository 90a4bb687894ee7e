"""The frozen settings: defaults, and what holds for one model."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from llamarunner.config import AudioSettings, Door, LoraAdapter, ModelSettings, Settings, SpeechSettings


def test_the_defaults_are_the_two_doors_of_the_specification() -> None:
    doors = dict(Settings().proxies.doors())
    assert {name: (door.host, door.port) for name, door in doors.items()} == {
        "ollama": ("127.0.0.1", 11434),
        "lmstudio": ("127.0.0.1", 1234),
    }
    limits = doors["lmstudio"].rate_limits
    assert (limits.requests_per_minute, limits.concurrent_requests) == (100, 10)
    assert (limits.streaming_connections, limits.file_upload_size_mb) == (5, 100)


def test_each_limit_can_be_switched_off() -> None:
    names = ("requests_per_minute", "concurrent_requests", "streaming_connections", "file_upload_size_mb")
    for name in names:
        limits = Door.model_validate({"rate_limits": {name: None}}).rate_limits
        assert [getattr(limits, other) is None for other in names] == [other == name for other in names]
    assert not Door().rate_limits.exempt_loopback


def test_proxies_are_trusted_by_address_or_network() -> None:
    given = ["10.0.0.1", "192.168.1.7/16", "2001:DB8::/32", "::1"]
    assert Door.model_validate({"trusted_proxies": given}).trusted_proxies == (
        "10.0.0.1/32",
        "192.168.0.0/16",
        "2001:db8::/32",
        "::1/128",
    )


def test_a_door_keeps_its_port_when_something_else_is_set() -> None:
    settings = Settings.model_validate({"proxies": {"ollama": {"host": "::"}, "lmstudio": {"enabled": False}}})
    assert [(name, door.port) for name, door in settings.proxies.doors()] == [("ollama", 11434)]
    assert settings.proxies.lmstudio.port == 1234


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("LocalHost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("fe80::1%eth0", False),
        ("localhost.example", False),
    ],
)
def test_a_door_on_loopback_is_local(host: str, local: bool) -> None:
    assert Door(host=host).local is local


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().proxies.ollama.port = 1  # type: ignore[misc]


def test_for_model_puts_globs_in_file_order_over_the_defaults_and_the_exact_id_over_all() -> None:
    settings = Settings(
        defaults=ModelSettings(ctx_size=1, threads=1, batch_size=1, parallel=1),
        models={
            "qwen2.5": ModelSettings(parallel=4),
            "*": ModelSettings(threads=2, batch_size=2, parallel=2),
            "qwen*": ModelSettings(batch_size=3, parallel=3),
            "llama*": ModelSettings(ctx_size=9),
        },
    )
    found = settings.for_model("qwen2.5")
    assert (found.ctx_size, found.threads, found.batch_size, found.parallel) == (1, 2, 3, 4)


def test_for_model_ignores_case() -> None:
    settings = Settings(models={"Qwen*": ModelSettings(ctx_size=7), "LLAMA": ModelSettings(ctx_size=8)})
    assert settings.for_model("qwen2.5").ctx_size == 7
    assert settings.for_model("llama").ctx_size == 8


def test_a_speech_model_is_run_as_all_but_for_what_is_said_of_it() -> None:
    audio = AudioSettings(
        beam_size=3,
        threads=2,
        models={
            "whisper-large-v3": SpeechSettings(device="cuda", compute_type="float16"),
            "Whisper-*": SpeechSettings(device="cpu", batch_size=8),
            "*": SpeechSettings(threads=None),
        },
    )
    large = SpeechSettings(device="cuda", compute_type="float16", batch_size=8, beam_size=3)
    assert audio.for_model("whisper-large-v3") == large
    assert audio.for_model("whisper-base") == SpeechSettings(device="cpu", batch_size=8, beam_size=3)
    assert audio.for_model("other") == SpeechSettings(beam_size=3)


def test_an_id_with_brackets_is_found_as_it_is_written() -> None:
    settings = Settings(models={"odd[1]": ModelSettings(ctx_size=7)})
    assert settings.for_model("odd[1]").ctx_size == 7


def test_a_null_for_one_model_takes_a_default_back() -> None:
    settings = Settings(defaults=ModelSettings(mmproj=Path("a"), threads=3), models={"x": ModelSettings(mmproj=None)})
    assert settings.for_model("x").mmproj is None
    assert settings.for_model("x").threads == 3
    assert settings.for_model("y").mmproj == Path("a")


def test_a_list_for_one_model_replaces_the_default_list() -> None:
    settings = Settings(
        defaults=ModelSettings(extra_args=("--no-warmup",)), models={"x": ModelSettings(extra_args=("--no-perf",))}
    )
    assert settings.for_model("x").extra_args == ("--no-perf",)


def test_a_lora_adapter_may_be_a_path_alone() -> None:
    settings = ModelSettings.model_validate({"lora": ["a.gguf", {"path": "b.gguf", "scale": 0.5}]})
    assert settings.lora == (LoraAdapter(path=Path("a.gguf")), LoraAdapter(path=Path("b.gguf"), scale=0.5))


def test_a_secret_is_not_in_the_text_of_a_door() -> None:
    door = Door.model_validate({"api_keys": ["s3cret"]})
    assert "s3cret" not in f"{door!r} {door} {door.model_dump_json()}"
    assert door.api_keys[0].get_secret_value() == "s3cret"


def test_a_key_may_be_a_text_or_an_object() -> None:
    given = [
        "plain",
        {"key": "s3cret", "name": "phone", "models": ["tiny*"], "rate_limits": {"requests_per_minute": 5}},
    ]
    plain, phone = Door.model_validate({"api_keys": given}).known_keys()
    assert (plain.key.get_secret_value(), plain.models, plain.rate_limits) == ("plain", ("*",), None)
    assert (phone.key.get_secret_value(), phone.models, phone.bearer) == ("s3cret", ("tiny*",), "phone")
    assert phone.rate_limits
    assert (phone.rate_limits.requests_per_minute, phone.rate_limits.concurrent_requests) == (5, 10)
    assert plain.bearer not in ("", phone.bearer)
    assert "s3cret" not in f"{phone!r}" + phone.model_dump_json()
