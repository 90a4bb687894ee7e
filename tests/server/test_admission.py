"""Who may come in, asked as values."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.config import Door
from llamarunner.errors import Forbidden, InvalidRequest, Unauthorized
from llamarunner.server.admission import Admission

OPEN = Admission(Door())
LOCKED = Admission(Door.model_validate({"api_keys": ["one", "clé-zwei"]}))

OWN_HOSTS = [
    "localhost",
    "LOCALHOST",
    "localhost:11434",
    "localhost.",
    "app.localhost:1",
    "127.0.0.1",
    "127.0.0.1:1234",
    "127.8.9.10",
    "192.168.1.5:11434",
    "0.0.0.0",
    "[::1]",
    "[::1]:1234",
    "[fe80::1%eth0]:1",
    "8.8.8.8",
    socket.gethostname(),
    f"{socket.gethostname()}:80",
    "box.example",
    "BOX.example:9",
]
OTHER_HOSTS = [
    "",
    "evil.example",
    "evil.example:11434",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "127.1",
    "2130706433",
    "0x7f.1",
    "1.2.3.4.5",
    "::1",
    "[::1",
    "::1]",
    "[localhost]",
    "[127.0.0.1]",
    "localhost:",
    "localhost:80a",
    "localhost:-1",
    "localhost:\u0661",
    "localhost:80:80",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost/evil",
    "local host",
    "localhost\t",
    ":80",
    "not-localhost",
    "box.example.evil",
    "ox.example",
    ".localhost.evil",
]


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_s04_own_names_and_addresses_may_be_called(host: str) -> None:
    Admission(Door(allowed_hosts=("Box.Example",))).check_host(host)


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_s04_names_that_anybody_could_own_may_not(host: str) -> None:
    with pytest.raises(Forbidden):
        Admission(Door(allowed_hosts=("Box.Example",))).check_host(host)


@given(st.text())
def test_any_host_is_allowed_or_forbidden(host: str) -> None:
    if not OPEN.is_own_host(host):
        with pytest.raises(Forbidden):
            OPEN.check_host(host)


@pytest.mark.parametrize(
    ("allowed", "origin", "host"),
    [
        ((), "http://localhost:1234", "localhost:1234"),
        ((), "https://box.example", "box.example"),
        (("https://app.example",), "https://app.example", "localhost:1234"),
        (("*",), "https://anything.example", "localhost:1234"),
        (("*",), "null", "localhost:1234"),
    ],
)
def test_pages_of_this_server_and_of_allowed_origins_may_call(allowed: tuple[str, ...], origin: str, host: str) -> None:
    Admission(Door(cors_origins=allowed)).check_origin(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://app.example.evil",
        "http://app.example",
        "null",
        "",
        "localhost:1234",
        "http://localhost:9",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    with pytest.raises(Forbidden):
        Admission(Door(cors_origins=("https://app.example",))).check_origin(origin, "localhost:1234")


DESKTOP_ORIGINS = [
    "http://localhost",
    "http://localhost:3000",
    "https://localhost:8443",
    "http://127.0.0.1:8080",
    "http://0.0.0.0:80",
    "http://[::1]:5",
    "http://tauri.localhost",
    "app://obsidian.md",
    "file://",
    "tauri://localhost",
    "vscode-webview://abc",
    "vscode-file://vscode-app",
]


@pytest.mark.parametrize("origin", DESKTOP_ORIGINS)
def test_programs_of_the_desktop_may_call_ollamas_door_and_no_other(origin: str) -> None:
    Admission(Door(), desktop=True).check_origin(origin, "localhost:11434")
    with pytest.raises(Forbidden):
        OPEN.check_origin(origin, "localhost:1234")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://localhost.evil.example",
        "http://localhost:80.evil.example",
        "http://localhost@evil.example",
        "http://evil.example/app://",
        "https://evil.example",
        "chrome-extension://abc",
        "http://127.0.0.1.nip.io",
        "http://192.168.1.9",
        "HTTP://localhost:1\nx",
    ],
)
def test_s19_pages_of_web_sites_may_not(origin: str) -> None:
    with pytest.raises(Forbidden):
        Admission(Door(), desktop=True).check_origin(origin, "localhost:11434")


@pytest.mark.parametrize("host", ["host.docker.internal:11434", "host.containers.internal"])
def test_s04_containers_may_call_their_machine_on_ollamas_door(host: str) -> None:
    Admission(Door(), desktop=True).check_host(host)
    with pytest.raises(Forbidden):
        OPEN.check_host(host)


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_s04_no_stranger_may(host: str) -> None:
    with pytest.raises(Forbidden):
        Admission(Door(allowed_hosts=("Box.Example",)), desktop=True).check_host(host)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer one"},
        {"Authorization": "bearer one"},
        {"Authorization": "Bearer   one "},
        {"x-api-key": "one"},
        {"x-api-key": "clé-zwei"},
        {"Authorization": "Bearer one", "x-api-key": "one"},
        {"Authorization": "Basic b25l", "x-api-key": "one"},
    ],
)
def test_a_key_opens(headers: dict[str, str]) -> None:
    LOCKED.check_key(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "one"},
        {"Authorization": "Basic one"},
        {"Authorization": "Bearer on"},
        {"Authorization": "Bearer onee"},
        {"Authorization": "Bearer ONE"},
        {"x-api-key": ""},
        {"x-api-key": "' OR 1=1 --"},
        {"x-api-key": "one\0"},
        {"x-api-key": "\udce9"},
        {"x-api-key": "k" * 1_000_000},
    ],
)
def test_s25_anything_else_does_not(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        LOCKED.check_key(headers)


def test_s27_two_different_keys_are_ambiguous() -> None:
    with pytest.raises(InvalidRequest):
        LOCKED.check_key({"Authorization": "Bearer one", "x-api-key": "clé-zwei"})


@given(st.text())
def test_s25_any_text_as_key_is_refused(key: str) -> None:
    with pytest.raises(Unauthorized):
        LOCKED.check_key({"Authorization": f"Bearer x{key}"})


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer whatever"}, {"x-api-key": "a"}])
def test_without_keys_any_value_will_do(headers: dict[str, str]) -> None:
    OPEN.check_key(headers)
