"""Who listens to what models are asked."""

from __future__ import annotations

from pathlib import Path

from llamarunner.catalog import ModelEntry
from llamarunner.fleet.launch import Endpoint
from llamarunner.server.tap import MOST_BYTES, Asked, Tap


def asked(body: bytes) -> Asked:
    return Asked(ModelEntry("chat", Path("/chat.gguf")), Endpoint("http://127.0.0.1:1", "key"), "/v1/completions", body)


def test_all_listeners_hear_it_as_long_as_they_listen() -> None:
    tap, first, second = Tap(), list[Asked](), list[Asked]()
    one, two = asked(b"1"), asked(b"2")
    with tap.listening(first.append), tap.listening(second.append):
        tap.tell(one)
    tap.tell(two)
    assert (first, second) == ([one], [one])


def test_what_is_long_is_not_told() -> None:
    tap, heard = Tap(), list[Asked]()
    with tap.listening(heard.append):
        tap.tell(asked(b"x" * (MOST_BYTES + 1)))
        tap.tell(asked(b"x" * MOST_BYTES))
    assert [len(one.body) for one in heard] == [MOST_BYTES]
