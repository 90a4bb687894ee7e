"""Streams: keep-alives, early answers, and what passes from a model's process to the client and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from doors import open_house

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
COMMENT = ": keep-alive\n\n"
PING = 'event: ping\ndata: {"type":"ping"}\n\n'
OFTEN = {"sse_keepalive_seconds": 0.1}


async def test_a_comment_keeps_the_client_while_the_model_loads(tmp_path: Path) -> None:
    slow = ("--fake-slow", "0.5")
    async with open_house(tmp_path, server=OFTEN, flags=slow) as house, house.chat(stream=True) as response:
        assert response.status == 200
        assert house.services.supervisor.loaded() == [], "the answer has begun before the model is there"
        text = await response.text()
    assert text.startswith(COMMENT * 3)
    assert text.replace(COMMENT, "").startswith('data: {"id": "c"')
    assert text.endswith("data: [DONE]\n\n")


async def test_a_comment_keeps_the_client_while_the_prompt_is_processed(tmp_path: Path) -> None:
    async with open_house(tmp_path, server=OFTEN) as house:
        async with house.chat() as response:
            assert response.status == 200
        async with house.chat(stream=True, fake={"prefill": 0.35}) as response:
            text = await response.text()
    assert text.startswith(COMMENT * 2)
    assert text.count(COMMENT) == 3


@pytest.mark.parametrize(("path", "pulse"), [("/v1/chat/completions", COMMENT), ("/v1/messages", PING)])
async def test_silence_between_events_is_filled(tmp_path: Path, path: str, pulse: str) -> None:
    async with open_house(tmp_path, server=OFTEN) as house:
        async with house.chat() as response:
            assert response.status == 200
        document = {**CHAT, "stream": True, "fake": {"tokens": 2, "delay": 0.25}}
        async with house.post(path, document) as response:
            text = await response.text()
    first, rest = text.split('"t0 "')
    assert pulse not in first
    assert rest.split("\n\n")[1] == pulse.removesuffix("\n\n")
    assert rest.count(pulse) >= 3


async def test_a_busy_stream_has_no_keep_alive(tmp_path: Path) -> None:
    async with open_house(tmp_path, server=OFTEN) as house:
        async with house.chat() as response:
            assert response.status == 200
        async with house.chat(stream=True, fake={"tokens": 20, "delay": 0.02}) as response:
            assert COMMENT not in await response.text()


async def test_zero_switches_keep_alives_off(tmp_path: Path) -> None:
    never = {"sse_keepalive_seconds": 0}
    silence = {"prefill": 0.3}
    async with open_house(tmp_path, server=never) as house, house.chat(stream=True, fake=silence) as response:
        assert COMMENT not in await response.text()


async def test_an_answer_in_one_piece_has_no_keep_alive(tmp_path: Path) -> None:
    async with open_house(tmp_path, server=OFTEN) as house, house.chat(fake={"prefill": 0.3}) as response:
        assert (await response.json())["object"] == "chat.completion"


async def test_an_early_failure_has_its_status(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-exit", "3")) as house, house.chat(stream=True) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "service_unavailable"
        assert int(response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("path", "before"),
    [("/v1/chat/completions", ""), ("/v1/messages", "event: error\n"), ("/v1/responses", "event: error\n")],
)
async def test_a_failure_after_a_keep_alive_is_an_event_and_a_clean_end(tmp_path: Path, path: str, before: str) -> None:
    flags = ("--fake-late", "0.4", "--fake-exit", "3")
    document = {**CHAT, "input": "hello", "stream": True}
    async with open_house(tmp_path, server=OFTEN, flags=flags) as house, house.post(path, document) as response:
        assert response.status == 200
        text = await response.text()  # raises if the end is not clean
    assert text.startswith(COMMENT)
    begin, _, last = text.removesuffix("\n\n").rpartition("\n\n")[2].partition("data: ")
    assert begin == before
    assert "exit" in json.dumps(json.loads(last))


@pytest.mark.parametrize(
    ("status", "ours", "code"),
    [
        (400, 400, "invalid_request"),
        (401, 502, "server_error"),
        (404, 404, "not_found"),
        (500, 500, "server_error"),
        (501, 400, "invalid_request"),
        (503, 503, "service_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_models_error_is_said_in_our_words(
    tmp_path: Path, status: int, ours: int, code: str, stream: bool
) -> None:
    async with open_house(tmp_path) as house:
        async with house.chat(
            stream=stream, fake={"status": status, "message": "because of /home/me/x.gguf"}
        ) as response:
            assert response.status == ours
            error = (await response.json())["error"]
        assert error["code"] == code
        assert "/home" not in error["message"]
        assert house.leases() == 0


async def test_only_chosen_headers_pass_in_either_direction(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        headers = {
            "Authorization": "Bearer mine",
            "Cookie": "a=b",
            "X-Forwarded-For": "1.2.3.4",
            "OpenAI-Organization": "o",
        }
        async with house.client.post(
            house.url + "/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers
        ) as response:
            assert response.headers["Server"] == "LlamaRunner"
            assert "fake" not in str(response.headers)
            await response.read()
        sent = house.journal("request")[0]["headers"]
        assert sent.pop("Host").startswith("127.0.0.1:")
        assert sent.pop("Content-Length").isdecimal()
        assert sent == {
            "Content-Type": "application/json",
            "Authorization": "Bearer secret-of-the-child",
        }


async def test_many_streams_share_one_start(tmp_path: Path) -> None:
    async def ask(number: int) -> bytes:
        async with house.chat(stream=True, fake={"tokens": number}) as response:
            return bytes(await response.read())

    async with open_house(tmp_path) as house:
        answers = await asyncio.gather(*map(ask, range(1, 41)))
        assert [answer.count(b'"delta"') for answer in answers] == list(range(1, 41))
        assert len(house.journal("start")) == 1
        assert house.leases() == 0


async def test_a_stream_in_http_1_0_ends_with_the_connection(tmp_path: Path) -> None:
    body = json.dumps({**CHAT, "stream": True})
    async with open_house(tmp_path) as house:
        answer = await house.request(
            f"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert b"chunked" not in head
    assert rest.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_cut_stream_in_http_1_0_is_a_reset(tmp_path: Path) -> None:
    """Without chunks only a reset tells half an answer from a whole one."""
    body = json.dumps({**CHAT, "stream": True, "fake": {"then": "die"}})
    async with open_house(tmp_path) as house:
        with pytest.raises(ConnectionResetError):
            await house.request(
                f"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            )


STREAM_HEAD = (
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"  # ends with the connection
)


def scripted(*steps: str | float) -> tuple[str, str]:
    return "scripted_llama.py", json.dumps(steps)


async def test_an_event_in_two_parts_is_not_split_by_a_keep_alive(tmp_path: Path) -> None:
    program = scripted(STREAM_HEAD, 'data: {"a":', 0.3, "1}\n", 0.3, "\n", 0.3, "data: [DONE]\n\n")
    async with open_house(tmp_path, server=OFTEN, program=program) as house, house.chat(stream=True) as response:
        text = await response.text()
        text = text[text.index("data") :]  # what is before came while the model was loading
    assert text.replace(COMMENT, "") == 'data: {"a":1}\n\ndata: [DONE]\n\n'
    assert text.startswith('data: {"a":1}\n\n' + COMMENT)


async def test_an_event_byte_by_byte_passes(tmp_path: Path) -> None:
    said = 'data: {"a":"\u00e9\U0001f600"}\r\n\r\ndata: [DONE]\n\n'
    program = scripted(STREAM_HEAD, *said)
    async with open_house(tmp_path, program=program) as house, house.chat(stream=True) as response:
        assert await response.text() == said


async def test_a_stream_that_is_no_stream_keeps_its_type(tmp_path: Path) -> None:
    program = scripted(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n", '{"a":', 0.3, "12}"
    )
    async with open_house(tmp_path, server=OFTEN, program=program) as house:
        async with house.chat() as response:
            assert response.status == 200
        async with house.chat(stream=True) as response:
            assert response.content_type == "application/json"
            assert await response.json() == {"a": 12}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_nonsense_instead_of_an_answer_is_502(tmp_path: Path, answer: str, stream: bool) -> None:
    async with open_house(tmp_path, program=scripted(answer)) as house, house.chat(stream=stream) as response:
        assert response.status == 502
        error = (await response.json())["error"]
        assert error["code"] == "server_error"
        assert "'chat'" in error["message"] or "unexpected answer" in error["message"]
