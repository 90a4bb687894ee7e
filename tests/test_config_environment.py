"""What the environment says in the settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.config import Settings, load
from llamarunner.config.environment import Expansion
from llamarunner.errors import ConfigError

Read = Callable[[dict[str, Any], dict[str, str]], Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def _read(document: dict[str, Any], environ: dict[str, str]) -> Settings:
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return load(path, environ=environ).settings

    return _read


def test_a_secret_comes_from_the_environment(read: Read) -> None:
    settings = read({"proxies": {"ollama": {"api_keys": ["${KEY}"]}}}, {"KEY": "12345"})
    assert [key.get_secret_value() for key in settings.proxies.ollama.api_keys] == ["12345"]


def test_a_whole_value_becomes_what_the_schema_wants(read: Read) -> None:
    settings = read(
        {
            "proxies": {"ollama": {"port": "${PORT}", "enabled": "${YES}", "api_keys": "${KEYS}"}},
            "defaults": {"n_gpu_layers": "${LAYERS}", "flash_attn": "${FA}", "rope_freq_scale": "${SCALE}"},
        },
        {"PORT": "4321", "YES": "true", "KEYS": '["a", "b"]', "LAYERS": "99", "FA": "on", "SCALE": "1"},
    )
    assert (settings.proxies.ollama.port, settings.proxies.ollama.enabled) == (4321, True)
    assert len(settings.proxies.ollama.api_keys) == 2
    assert (settings.defaults.n_gpu_layers, settings.defaults.flash_attn) == (99, "on")
    assert settings.defaults.rope_freq_scale == 1.0


def test_a_union_takes_a_word_from_the_environment(read: Read) -> None:
    assert read({"defaults": {"n_gpu_layers": "${LAYERS}"}}, {"LAYERS": "all"}).defaults.n_gpu_layers == "all"


@pytest.mark.parametrize(("environ", "port"), [({}, 4321), ({"PORT": ""}, 4321), ({"PORT": "5"}, 5)])
def test_a_default_stands_in_for_a_variable_that_is_unset_or_empty(
    read: Read, environ: dict[str, str], port: int
) -> None:
    assert read({"proxies": {"ollama": {"port": "${PORT:-4321}"}}}, environ).proxies.ollama.port == port


def test_references_stand_within_text_and_can_be_escaped(read: Read) -> None:
    template = "a ${X}b${Y:-c} $${X} $X"
    assert read({"defaults": {"chat_template": template}}, {"X": "1"}).defaults.chat_template == "a 1bc ${X} $X"


def test_what_a_variable_holds_is_not_expanded_again(read: Read) -> None:
    assert read({"defaults": {"chat_template": "${X}"}}, {"X": "${Y}"}).defaults.chat_template == "${Y}"


def test_an_unset_variable_is_told_with_its_place(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read({"proxies": {"ollama": {"api_keys": ["a", "${KEY}"]}}}, {})
    assert caught.value.problems == (
        f"{tmp_path / 'c.yaml'}:5: $.proxies.ollama.api_keys[1] needs the environment variable KEY, which is not set;"
        " ${KEY:-…} gives a default",
    )


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "x ${1}", "${A:+b}"])
def test_a_malformed_reference_is_told(read: Read, text: str) -> None:
    with pytest.raises(ConfigError, match=r"\$\.defaults\.chat_template has a \$\{…\} that names no variable"):
        read({"defaults": {"chat_template": text}}, {})


def test_a_variable_for_a_key_wins_over_the_file(read: Read) -> None:
    environ = {
        "LLAMARUNNER__PROXIES__OLLAMA__PORT": "4321",
        "LLAMARUNNER__PROXIES__LMSTUDIO__API_KEYS": '["k"]',
        "LLAMARUNNER__DEFAULTS__CTX_SIZE": "null",
        "LLAMARUNNER__SUPERVISOR__TTL_SECONDS": "0.5",
        "LLAMARUNNER__RUNTIME__KIND": "xllamacpp",
    }
    settings = read({"proxies": {"ollama": {"port": 1}}, "defaults": {"ctx_size": 5}}, environ)
    assert settings.proxies.ollama.port == 4321
    assert settings.proxies.lmstudio.api_keys[0].get_secret_value() == "k"
    assert settings.defaults.ctx_size is None
    assert (settings.supervisor.ttl_seconds, settings.runtime.kind) == (0.5, "xllamacpp")


def test_a_variable_for_a_key_needs_no_file(tmp_path: Path) -> None:
    environ = {"LLAMARUNNER__PROXIES__OLLAMA__PORT": "4321"}
    loaded = load(environ=environ, folder=tmp_path, user_folder=tmp_path)
    assert (loaded.source, loaded.settings.proxies.ollama.port) == (None, 4321)


def test_a_mistake_in_a_variable_names_the_variable(tmp_path: Path) -> None:
    environ = {"LLAMARUNNER__PROXIES__OLLAMA__PORT": "high", "LLAMARUNNER__SERVER__DRAIN": "5"}
    with pytest.raises(ConfigError) as caught:
        load(environ=environ, folder=tmp_path, user_folder=tmp_path)
    assert caught.value.problems == (
        'LLAMARUNNER__PROXIES__OLLAMA__PORT: $.proxies.ollama.port is "high"; allowed: an integer from 0 to 65535',
        'LLAMARUNNER__SERVER__DRAIN: $.server.drain is not a known key; did you mean "drain_seconds"?',
    )


@given(st.text())
def test_any_text_expands_or_is_told(text: str) -> None:
    expansion = Expansion({"A": "1"})
    value = expansion.expand(text, ("defaults", "chat_template"))
    assert isinstance(value, str)
    assert value == text or "${" in text


@given(st.text())
def test_an_escaped_text_comes_back_as_it_was(text: str) -> None:
    expansion = Expansion({})
    escaped = text.replace("${", "$${")
    if "$$${" not in escaped:
        assert expansion.expand(escaped, ("defaults", "chat_template")) == text
        assert expansion.mistakes == []
