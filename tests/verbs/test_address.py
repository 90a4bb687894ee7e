"""Where the server is looked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llamarunner.config import load
from llamarunner.errors import ConfigError
from llamarunner.verbs import address
from llamarunner.verbs.address import Address, WrongAddress, find, parse

FREE = 9  # a port on which nobody listens


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("example.com", "http://example.com:11434"),
        ("example.com:80", "http://example.com:80"),
        (":5000", "http://127.0.0.1:5000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:8443/ollama/", "https://example.com:8443/ollama"),
        ("::1", "http://[::1]:11434"),
        ("[::]:5000", "http://[::1]:5000"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:11434"),
        (' "example.com" ', "http://example.com:11434"),
        ("", "http://127.0.0.1:11434"),
    ],
)
def test_addresses_are_read_as_ollama_reads_them(text: str, url: str) -> None:
    assert parse(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        *("host:port", "host:99999", "ftp://host", "http://me@host", "[::1", "host?x"),
        *("a..b", "a" * 64, "a b", "host/a b", "host/é", "host/\udcff"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(WrongAddress, match="is no address of a server"):
        parse(text)


def test_a_key_that_cannot_be_sent_is_refused() -> None:
    environ = {"LLAMARUNNER_HOST": "host", "LLAMARUNNER_API_KEY": " of a file\n"}
    assert find(environ=environ).key == "of a file"
    for key in ("a\nb", "a\udcff"):
        with pytest.raises(WrongAddress, match="API key"):
            find(key=key, environ=environ)


def test_the_option_goes_over_the_environment_and_that_over_the_settings(tmp_path: Path) -> None:
    Path("config.json").write_text(json.dumps({"$schema": "llamarunner", "proxies": {"ollama": {"port": 1}}}))
    both = {"LLAMARUNNER_HOST": "ours:2", "OLLAMA_HOST": "theirs:3"}
    assert find("option:4", environ=both).url == "http://option:4"
    assert find(environ=both).url == "http://ours:2"
    assert find(environ={"OLLAMA_HOST": "theirs:3"}).url == "http://theirs:3"
    assert find(environ={}).url == "http://127.0.0.1:1"
    Path("config.json").unlink()
    assert find(environ={}) == Address("127.0.0.1", 11_434)


def test_the_settings_key_goes_to_the_settings_door_only() -> None:
    door = {"port": 1, "api_keys": ["first", "second"]}
    Path("config.json").write_text(json.dumps({"$schema": "llamarunner", "proxies": {"ollama": door}}))
    assert find(environ={}).key == "first"
    assert find("127.0.0.1:1", environ={}).key == "first"
    assert find("127.0.0.1:2", environ={}).key is None
    assert find("example.com:1", environ={}).key is None
    assert find("https://127.0.0.1:1", environ={}).key is None
    assert find("example.com:1", "mine", environ={}).key == "mine"
    assert find(environ={"LLAMARUNNER_API_KEY": "theirs"}).key == "theirs"


def test_a_port_that_is_not_known_is_asked_for() -> None:
    Path("config.json").write_text(json.dumps({"$schema": "llamarunner", "proxies": {"ollama": {"port": 0}}}))
    with pytest.raises(WrongAddress, match="--host HOST:PORT"):
        find(environ={})


OURS: dict[str, Any] = {"$schema": "https://example.com/llamarunner.schema.json"}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another host": {"ollama": {"host": "0.0.0.0", "port": 5}},
    "keys": {"ollama": {"port": 5, "api_keys": ["one", "two"]}},
    "keys with names": {"ollama": {"api_keys": [{"key": "one", "name": "x"}]}},
    "references": {"ollama": {"port": "${PORT}", "api_keys": ["${KEY}"]}},
    "another door": {"lmstudio": {"port": 7, "api_keys": ["other"]}},
}


@pytest.mark.parametrize("ending", ["json", "yaml"])
@pytest.mark.parametrize("place", ["named", "here", "at home"])
@pytest.mark.parametrize("proxies", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_look_at_the_settings_sees_what_reading_them_does(
    tmp_path: Path, proxies: dict[str, Any], place: str, ending: str
) -> None:
    home = tmp_path / "home" / ".config" / "llamarunner"
    home.mkdir(parents=True)
    folder = {"named": tmp_path, "here": Path(), "at home": home}[place]
    file = folder / f"config.{ending}"
    file.write_text(json.dumps({**OURS, "proxies": proxies}))  # which is YAML too
    environ = {"PORT": "6", "KEY": "secret"} | ({"LLAMARUNNER_CONFIG": str(file)} if place == "named" else {})
    door = load(environ=environ).settings.proxies.ollama
    keys = [key.key.get_secret_value() for key in door.known_keys()]
    expected = Address(address.reachable(door.host), door.port, key=keys[0] if keys else None)
    assert address.of_settings(environ) == expected


def test_anothers_settings_file_is_passed_over() -> None:
    Path("config.json").write_text(json.dumps({"proxies": {"ollama": {"port": 5}}, "a": 1, "b": 2}))
    assert address.of_settings({}).port == load(environ={}).settings.proxies.ollama.port == 11_434


def test_the_environment_goes_over_the_file() -> None:
    Path("config.json").write_text(json.dumps({**OURS, "proxies": {"ollama": {"port": 5}}}))
    assert address.of_settings({"LLAMARUNNER__PROXIES__OLLAMA__PORT": "6"}).port == 6


@pytest.mark.parametrize("text", ['{"proxies": {"ollama": {"port": "five"}}, "$schema": "llamarunner"}', "{", "[]"])
def test_wrong_settings_are_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    with pytest.raises(ConfigError):
        address.of_settings({"LLAMARUNNER_CONFIG": os.fspath(file)})
    with pytest.raises(ConfigError):
        address.of_settings({"LLAMARUNNER_CONFIG": os.fspath(tmp_path / "nowhere.json")})
