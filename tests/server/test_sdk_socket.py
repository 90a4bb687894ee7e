"""The protocol of LM Studio's sockets: ids, warnings, errors, and what holds them within bounds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from doors import open_house
from sdk_talking import LONG, Json, asking, dialled, named

from llamarunner.server import sdk_socket


async def test_an_unknown_endpoint_is_warned_of_and_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "runtime") as line:
        await line.send(line.call("listEngines"))
        warning, error = await line.next(), await line.next()
        text = "Received rpcCall for unknown endpoint, endpoint = listEngines"
        assert warning == {"type": "communicationWarning", "warning": text, "kind": "rpcEndpointUnknown"}
        assert (error["type"], error["callId"]) == ("rpcError", 1)
        assert (
            error["error"]["rootTitle"] == error["error"]["title"] == "There is no endpoint 'listEngines' in 'runtime'."
        )
        channel = await line.open("nothing")
        warning, error = await line.next(), await line.next()
        assert (warning["kind"], error["type"], error["channelId"]) == (
            "channelEndpointUnknown",
            "channelError",
            channel,
        )


async def test_warnings_are_few_and_errors_are_not(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "runtime") as line:
        for number in range(8):
            await line.send(line.call("nothing"))
            kinds = [(await line.next())["type"]]
            if kinds == ["communicationWarning"]:
                kinds.append((await line.next())["type"])
            assert kinds == ["communicationWarning"] * (number < 5) + ["rpcError"], number


async def test_signals_are_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        for kind, told in (("signalSubscribe", "signalError"), ("writableSignalSubscribe", "writableSignalError")):
            await line.send({"type": kind, "endpoint": "news", "subscribeId": 7, "creationParameter": {}})
            answer = await line.next()
            assert (answer["type"], answer["subscribeId"]) == (told, 7)
        await line.send({"type": "signalUnsubscribe", "subscribeId": 7}, {"type": "keepAlive"})
        assert (await line.next())["type"] == "keepAliveAck"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "not valid JSON"),
        ("[]", "JSON object"),
        ('{"type": "rpcCall", "endpoint": "version"}', "'callId'"),
        ('{"type": "rpcCall", "endpoint": "version", "callId": -1}', "'callId'"),
        ('{"type": "rpcCall", "endpoint": "version", "callId": true}', "'callId'"),
        ('{"type": "channelCreate", "endpoint": 1, "channelId": 1}', "'endpoint'"),
        ('{"type": "nonsense"}', "type"),
    ],
)
async def test_frames_that_make_no_sense_are_warned_of(tmp_path: Path, text: str, said: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        await line.socket.send_str(text)
        warning = await line.next()
        assert warning["type"] == "communicationWarning"
        assert said in warning["warning"]
        assert "result" in await line.rpc("version")


async def test_bytes_are_no_frame(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        await line.socket.send_bytes(b"{}")
        assert (await line.next())["type"] == "communicationWarning"
        await line.socket.ping(b"x")
        assert "result" in await line.rpc("version")


async def test_an_id_is_used_once_at_a_time(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        channel = await line.open("predict", asking(LONG))
        await line.packet(channel, "fragment")
        await line.send({"type": "channelCreate", "endpoint": "predict", "channelId": channel})
        assert f"id {channel}" in (await line.next("communicationWarning"))["warning"]
        await line.stop(channel)
        assert (await line.until_end(channel))[1]["type"] == "channelClose"
        again = {"type": "channelCreate", "endpoint": "predict", "channelId": channel, "creationParameter": asking()}
        await line.send(again)
        assert (await line.until_end(channel))[1]["type"] == "channelClose"


async def test_calls_and_channels_have_ids_of_their_own(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        await line.send({"type": "channelCreate", "endpoint": "alive", "channelId": 0})
        await line.send({"type": "rpcCall", "endpoint": "version", "callId": 0})
        assert (await line.next())["type"] == "rpcResult"
        await line.send({"type": "channelSend", "channelId": 0, "ackId": 3, "message": {"type": "hello"}})
        assert await line.next() == {"type": "channelAck", "channelId": 0, "ackId": 3}
        await line.send({"type": "channelSend", "channelId": 0, "message": {"type": "stop"}})
        assert await line.next() == {"type": "channelClose", "channelId": 0}
        await line.send({"type": "channelSend", "channelId": 0, "message": {"type": "stop"}}, {"type": "keepAlive"})
        assert (await line.next())["type"] == "keepAliveAck", "what comes late is nobody's mistake"


async def test_a_call_without_a_result_has_no_key_for_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        assert await line.rpc("notify", {"title": "hello"}) == {"type": "rpcResult", "callId": 1}


async def test_what_an_endpoint_is_asked_is_checked(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        for parameter, param in (
            (None, None),
            ({}, "specifier"),
            ({"specifier": {"type": "other"}}, "specifier.type"),
            ({"specifier": {"type": "query", "query": {"identifier": 1}}}, "specifier.query.identifier"),
        ):
            error = (await line.rpc("getModelInfo", parameter))["error"]
            assert (error["errorData"]["code"], error["errorData"]["param"]) == ("invalid_request", param)


async def test_a_hundred_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        frames = [line.call("countTokens", {"specifier": named("chat"), "inputString": "x" * n}) for n in range(150)]
        async with asyncio.TaskGroup() as group:
            group.create_task(line.send(*frames))
            counts = {}
            for _ in frames:
                answer = await line.next("rpcResult", seconds=20)
                counts[answer["callId"]] = answer["result"]["tokenCount"]
    assert [counts[frame["callId"]] for frame in frames] == list(range(150))


async def test_a_client_that_answers_no_ping_is_dropped(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"write_stall_seconds": 0.2}) as house:
        async with dialled(house, "system", autoping=False) as line:
            await line.open("alive")
            assert await line.closed() in (1006, None)
        async with dialled(house, "system") as line:
            await line.open("alive")
            with pytest.raises(TimeoutError):
                await line.next(seconds=1.5)  # and answers to pings meanwhile
            await line.send({"type": "keepAlive"})
            assert await line.next() == {"type": "keepAliveAck"}


async def test_a_client_that_waits_long_for_many_calls_stays(tmp_path: Path) -> None:
    said = 'HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{"tokens":[]}'
    program = ("scripted_llama.py", json.dumps([0.4, said]))
    options = {"write_stall_seconds": 0.3}
    async with open_house(tmp_path, server=options, program=program) as house, dialled(house, "llm") as line:
        await line.load("chat")
        asked = {"specifier": named("chat"), "inputString": "x" * 16_000}
        calls = [line.call("countTokens", asked) for _ in range(2 * sdk_socket.MOST_CALLS)]
        async with asyncio.TaskGroup() as group:
            group.create_task(line.send(*calls))
            most, kinds = 0, set()
            for _ in calls:
                kinds.add((await line.next("rpcResult", "rpcError"))["type"])
                most = max(most, sum(record.method == "SDK" for record in house.services.records.active))
    assert kinds == {"rpcResult"}
    assert 1 < most <= sdk_socket.MOST_CALLS


async def test_channels_too_many_are_refused_and_cancels_heard(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "system") as line:
        opened = [await line.open("alive") for _ in range(sdk_socket.MOST_CHANNELS)]
        one_more = await line.open("alive")
        _, end = await line.until_end(one_more)
        assert (end["type"], end["error"]["errorData"]["code"]) == ("channelError", "rate_limit_exceeded")
        await line.stop(opened[0], "stop")
        assert (await line.until_end(opened[0]))[1]["type"] == "channelClose"
        await line.stop(await line.open("alive"), "stop")
        assert (await line.next())["type"] == "channelClose"


async def test_a_frame_that_is_too_long_ends_the_socket(tmp_path: Path) -> None:
    async with open_house(tmp_path, server={"max_body_mb": 1}) as house, dialled(house, "files") as line:
        parameter: Json = {"name": "a", "contentBase64": "A" * 900_000}
        assert (await line.rpc("uploadFileBase64", parameter))["result"]["sizeBytes"] == 675_000
        await line.send(line.call("uploadFileBase64", {"name": "a", "contentBase64": "A" * 1_100_000}))
        assert await line.closed() == 1009


async def test_frames_hold_no_bombs(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.socket.send_str('{"type": "rpcCall", "parameter": ' + "[" * 10_000 + "]" * 10_000 + "}")
        assert "levels deep" in (await line.next())["warning"]
        await line.socket.send_str(json.dumps({"type": "rpcCall", "parameter": [0] * 300_000}))
        assert "values" in (await line.next())["warning"]
