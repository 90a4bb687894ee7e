"""Which messages a chat loses that is too long."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects.ollama.shorten import shortened

TWICE = {"n_prompt_tokens": 200, "n_ctx": 110}


def message(role: str, content: Any = "x" * 100) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_the_oldest_go_and_the_system_and_the_last_stay() -> None:
    chat = [message("system"), message("user"), message("assistant"), message("user"), message("user", "last")]
    assert shortened(chat, TWICE) == [chat[0], chat[3], chat[4]]


def test_at_least_one_goes_whatever_was_told() -> None:
    chat = [message("user"), message("user")]
    assert shortened(chat, {}) == chat[1:]


def test_nothing_can_go() -> None:
    chat = [message("system"), message("user")]
    assert shortened(chat, TWICE) == chat
    assert shortened(chat[1:], TWICE) == chat[1:]


def test_no_result_stays_without_its_call() -> None:
    chat = [message("user"), message("assistant", ""), message("tool"), message("tool"), message("user")]
    told = {"n_prompt_tokens": 400, "n_ctx": 300}
    assert shortened(chat, told)[0]["role"] != "tool"


def test_a_picture_weighs_something() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:..."}}]
    chat = [message("user", picture), message("user"), message("user")]
    assert shortened(chat, TWICE) == chat[1:]


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text(max_size=20)), max_size=8),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_what_is_left_is_in_order_and_has_its_end(given_chat: list[tuple[str, str]], tokens: int, room: int) -> None:
    chat = [message(role, f"{at}{text}") for at, (role, text) in enumerate(given_chat)]
    left = shortened(chat, {"n_prompt_tokens": tokens, "n_ctx": room})
    assert [one for one in chat if one in left] == left
    assert left[-1:] == chat[-1:]
    assert [one for one in left if one["role"] == "system"] == [one for one in chat if one["role"] == "system"]
    movable = [one for one in chat[:-1] if one["role"] != "system"]
    assert len(left) < len(chat) or not movable
