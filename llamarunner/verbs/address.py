"""Where the server is, and the key that it wants.

A settings file is read in full only if it must be: to check it all takes longer than these verbs may take. One without
references to the environment can be looked at as it stands; a test holds both ways to the same answers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llamarunner.errors import LlamaRunnerError

DEFAULT_PORT = 11_434
HOST_VARIABLES = ("LLAMARUNNER_HOST", "OLLAMA_HOST")
KEY_VARIABLE = "LLAMARUNNER_API_KEY"
OVERRIDING = "LLAMARUNNER__"  # begins variables that go over the settings file
FILES = ("config.json", "config.yaml", "config.yml")


class WrongAddress(LlamaRunnerError):
    """What is given as the server's address is none."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server to talk to."""

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    path: str = ""  # before all paths, without a slash at its end
    key: str | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{self.path}"


def find(host: str | None = None, key: str | None = None, environ: Mapping[str, str] | None = None) -> Address:
    """Find the server: the options, the environment, the settings' Ollama door, or the usual place.

    The settings' key is sent to the settings' door only. Raises WrongAddress, or ConfigError for wrong settings.
    """
    environ = os.environ if environ is None else environ
    named = host or next((environ[name] for name in HOST_VARIABLES if environ.get(name, "").strip()), None)
    key = (key or environ.get(KEY_VARIABLE) or "").strip() or None
    if key and not key.isprintable():
        raise WrongAddress("The API key has characters that no key may have.")
    given = parse(named) if named else None
    if given and key:
        return Address(given.host, given.port, given.tls, given.path, key)
    door = of_settings(environ)
    if given is None:
        if not door.port:
            raise WrongAddress("The settings open the Ollama door on any free port; say which with --host HOST:PORT.")
        return Address(door.host, door.port, key=key or door.key)
    same = (given.host, given.port, given.tls) == (door.host, door.port, False)
    return Address(given.host, given.port, given.tls, given.path, door.key if same else None)


def parse(text: str) -> Address:
    """Read `host`, `host:port`, `:port` or a URL, as Ollama reads OLLAMA_HOST. Raises WrongAddress."""
    text = text.strip().strip("\"'").strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "", f"[{text}]" if _is_ipv6(text) else text
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
        (parts.hostname or "").encode("idna")
        if re.search(r"\s", rest) or not parts.path.isascii():
            raise ValueError
    except ValueError:
        raise WrongAddress(f"'{text[:200]}' is no address of a server; write HOST, HOST:PORT or a URL.") from None
    if scheme not in ("", "http", "https") or parts.query or parts.username:
        raise WrongAddress(f"'{text[:200]}' is no address of a server; write HOST, HOST:PORT or a URL.")
    usual = {"": DEFAULT_PORT, "http": 80, "https": 443}[scheme]
    return Address(reachable(parts.hostname or ""), port or usual, scheme == "https", parts.path.rstrip("/"))


def reachable(host: str) -> str:
    """The address to call for one to listen on: of all addresses of this machine, the one that stays inside it."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def of_settings(environ: Mapping[str, str]) -> Address:
    """Where the settings say that the Ollama door is, with its first key; port 0 is any. Raises ConfigError."""
    if not any(name.upper().startswith(OVERRIDING) for name in environ):
        found = _plain(environ)
        if found is not None:
            return found
    from llamarunner.config import load

    door = load(environ=environ).settings.proxies.ollama
    keys = door.known_keys()
    return Address(reachable(door.host), door.port, key=keys[0].key.get_secret_value() if keys else None)


def _plain(environ: Mapping[str, str]) -> Address | None:
    """The same by a look at the file; None if it takes more than that."""
    import platformdirs

    named = environ.get("LLAMARUNNER_CONFIG")
    here = [Path(name) for name in FILES if os.path.isfile(name)]
    folder = platformdirs.user_config_path("llamarunner", appauthor=False)
    files = [Path(os.path.expanduser(named))] if named else [*here, *(folder / name for name in FILES)]
    file = next((path for path in files if os.path.isfile(path)), None)
    if file is None:
        return None if named else Address("127.0.0.1")
    document = _read(file)
    if document is None or (file in here and "llamarunner" not in str(document.get("$schema", "")).lower()):
        return None  # it may be another program's
    return _door(document)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text()
        if re.search(r"\$\{", text):
            return None
        document = json.loads(text) if file.suffix == ".json" else _yaml(text)
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return None


def _door(document: dict[str, Any]) -> Address | None:
    proxies = document.get("proxies", {})
    door = proxies.get("ollama", {}) if isinstance(proxies, dict) else None
    if not isinstance(door, dict):
        return None
    host, port, keys = door.get("host", "127.0.0.1"), door.get("port", DEFAULT_PORT), door.get("api_keys", [])
    if not isinstance(host, str) or not isinstance(port, int) or not isinstance(keys, list):
        return None
    first = keys[0] if keys else None
    key = first.get("key") if isinstance(first, dict) else first
    return Address(reachable(host), port, key=key) if key is None or isinstance(key, str) else None
