"""Chats through the websocket."""

from __future__ import annotations

from pathlib import Path

import pytest
from doors import open_house
from talking import LONG, Json, asking, connected


@pytest.mark.parametrize("client", ["aiohttp", "websockets"])
@pytest.mark.parametrize("place", ["ollama", "lmstudio"])
async def test_a_chat_is_a_start_its_pieces_and_an_end_with_usage(tmp_path: Path, client: str, place: str) -> None:
    async with open_house(tmp_path) as house:
        house.urls["lmstudio"] = house.urls[place]
        async with connected(house, client) as talk:
            await talk.send({"type": "chat_message", "model": "CHAT:latest", "message": "Hello!"})
            start, *deltas, end = await talk.until_end("chat-1")
        assert start == {"type": "chat_start", "id": "chat-1", "model": "chat", "request_id": start["request_id"]}
        assert deltas == [{"type": "chat_delta", "id": "chat-1", "content": f"t{n} "} for n in range(5)]
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        assert end == {
            "type": "chat_end", "id": "chat-1", "model": "chat", "finish_reason": "stop", "usage": usage
        }  # fmt: skip
        asked = house.journal("request")[0]
        assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "chat")
        await house.until(lambda: house.leases() == 0)


async def test_several_chats_at_once_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        fakes = {name: {"tokens": count, "delay": 0.01} for name, count in (("a", 3), ("b", 7), ("c", 5))}
        await talk.send(*(asking(id=name, fake=fake) for name, fake in fakes.items()))
        ends, seen = 0, []
        while ends < 3:
            seen.append(await talk.next())
            ends += seen[-1]["type"] == "chat_end"
        for name, fake in fakes.items():
            text = "".join(m.get("content", "") for m in seen if m["id"] == name)
            assert text == "".join(f"t{n} " for n in range(fake["tokens"]))
        order = [message["id"] for message in seen if message["type"] == "chat_delta"]
        assert order != sorted(order), "they ran one after the other"


async def test_a_whole_conversation_thoughts_and_calls_of_tools_pass(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    deltas = [
        {"role": "assistant", "content": None},
        {"reasoning_content": "hm"},
        {"content": "ja \U0001f999"},
        {"tool_calls": [call]},
    ]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    async with open_house(tmp_path) as house, connected(house) as talk:
        asked = asking(messages=messages, id="x", fake={"deltas": deltas})
        del asked["message"]
        await talk.send(asked)
        _, *pieces, end = await talk.until_end("x")
        assert pieces == [{"type": "chat_delta", "id": "x", **delta} for delta in deltas[1:]]
        assert end["finish_reason"] == "tool_calls"


async def test_cancel_ends_one_chat_and_leaves_the_others(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", fake=LONG), asking(id="b", fake={"tokens": 20, "delay": 0.02}))
        await talk.next("chat_delta")
        await talk.send({"type": "cancel", "id": "a"})
        end = await talk.next("chat_end")
        assert (end["id"], end["finish_reason"], end["usage"]) == ("a", "cancelled", None)
        await house.wait_for("hangup")
        assert (await talk.next("chat_end"))["id"] == "b"
        await talk.send({"type": "cancel", "id": "a"})
        assert (await talk.next("error"))["error"]["param"] == "id"


async def test_cancel_in_the_same_breath_is_not_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.2")) as house, connected(house) as talk:
        for number in range(5):
            await talk.send(asking(id="a", fake=LONG), {"type": "cancel", "id": "a"})
            assert (await talk.until_end("a"))[-1]["finish_reason"] == "cancelled", number
        await house.until(lambda: house.leases() == 0)


async def test_an_id_can_be_used_again_after_the_end_and_not_before(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="a", fake={"delay": 0.02}), asking(id="a"))
        refused = await talk.next("error")
        assert (refused["id"], refused["error"]["param"]) == ("a", "id")
        assert (await talk.next("chat_end"))["id"] == "a"
        await talk.send(asking(id="a"))
        assert (await talk.until_end("a"))[-1]["type"] == "chat_end"


async def test_closing_the_socket_stops_its_chats(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for abrupt in (False, True):
            async with connected(house) as talk:
                await talk.send(asking(id="a", fake=LONG), asking(id="b", fake=LONG))
                await talk.next("chat_delta")
                await talk.next("chat_delta")
                if abrupt:
                    talk.socket._response.connection.transport.abort()
            await house.until(lambda: house.leases() == 0)
            await house.wait_for("hangup", 4 if abrupt else 2)
        assert len(house.services.drain) == 0
        assert await house.services.drain.idle(1)


@pytest.mark.parametrize(
    ("fake", "begins", "code"),
    [
        ({"status": 400, "message": "no such thing"}, False, "invalid_request"),
        ({"status": 500, "message": "boom"}, False, "server_error"),
        ({"then": "die"}, True, "server_error"),
        ({"then": "reset"}, True, "server_error"),
        ({"then": "garbage"}, None, "server_error"),  # what comes in one piece with it is lost
    ],
)
async def test_a_chat_that_fails_says_so_and_the_socket_stays(
    tmp_path: Path, fake: Json, begins: bool | None, code: str
) -> None:
    async with open_house(tmp_path) as house, connected(house) as talk:
        await talk.send(asking(id="x", fake=fake))
        start, *deltas, last = await talk.until_end("x")
        assert (start["type"], last["type"], last["error"]["code"]) == ("chat_start", "error", code)
        assert begins is None or bool(deltas) == begins
        await talk.send({"type": "ping", "id": "p"})
        assert await talk.next() == {"type": "pong", "id": "p"}


async def test_a_silent_model_is_given_up_in_time(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"token_seconds": 0.2}) as house, connected(house) as talk:
        await talk.send(asking(id="x", fake={"then": "hang"}))
        assert "silent" in (await talk.until_end("x"))[-1]["error"]["message"]
