"""The log through LM Studio's sockets."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest
from doors import open_house
from pydantic import SecretStr
from sdk_talking import Json, Line, asking, dialled

from llamarunner.config import NO_LIMITS, Door
from llamarunner.server.sdk_diagnostics import MOST_KEPT, News

log = logging.getLogger("llamarunner.server")


async def told(line: Line, channel: int, kind: str, words: str = "") -> Json:
    """The next line of a kind that has these words."""
    while True:
        one: Json = (await line.packet(channel, "log"))["log"]
        if one["data"]["type"] == kind and words in json.dumps(one["data"]):
            return one


async def test_lines_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llamarunner")
    async with open_house(tmp_path) as house, dialled(house, "diagnostics") as line:
        channel = await line.open("streamLogs")
        await house.until(lambda: bool(house.services.tap._listeners))
        log.warning("beware of %s", "dogs")
        one = await told(line, channel, "server.log", "dogs")
        assert one["data"] == {"type": "server.log", "content": "beware of dogs", "level": "warn"}
        assert abs(one["timestamp"] / 1000 - time.time()) < 60
        log.debug("nothing")
        log.error("bad")
        assert (await told(line, channel, "server.log", "bad"))["data"]["level"] == "error"
        await line.stop(channel, "stop")
        assert (await line.until_end(channel))[1]["type"] == "channelClose"
        assert not house.services.tap._listeners


@pytest.mark.parametrize(
    ("path", "document", "prompt"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, "<user>hi"),
        ("/v1/completions", {"prompt": "Once"}, "Once"),
        ("/infill", {"input_prefix": "a", "input_suffix": "b"}, '"input_suffix":'),
    ],
)
async def test_what_models_are_asked(tmp_path: Path, path: str, document: Json, prompt: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, "diagnostics") as line:
        channel = await line.open("streamLogs")
        await house.until(lambda: bool(house.services.tap._listeners))
        async with house.post(path, {"model": "chat", **document}) as response:
            assert response.status == 200
        data = (await told(line, channel, "llm.prediction.input"))["data"]
        assert prompt in data["input"]
        assert (data["modelPath"], data["modelIdentifier"]) == ("local/chat/chat.gguf", "chat")


async def test_predictions_of_the_sdk_too(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "diagnostics") as line, dialled(house, "llm") as llm:
        channel = await line.open("streamLogs")
        await house.until(lambda: bool(house.services.tap._listeners))
        await llm.load("chat")
        await llm.stream("predict", asking("what?"))
        assert (await told(line, channel, "llm.prediction.input"))["data"]["input"] == "<user>what?"


async def test_it_is_for_those_who_manage(tmp_path: Path) -> None:
    key = "sk-lm-aaaaaaaa:AAAAAAAAAAAAAAAAAAAA"
    hello = {"authVersion": 1, "clientIdentifier": "aaaaaaaa", "clientPasskey": "A" * 20}
    door = Door(rate_limits=NO_LIMITS, api_keys=(SecretStr(key),))
    async with open_house(tmp_path, door=door) as house, dialled(house, "diagnostics", hello) as line:
        channel = await line.open("streamLogs")
        await house.until(lambda: bool(house.services.tap._listeners))
        view = next(view for view in house.services.views if view.name == "lmstudio")
        view.configure(door.model_copy(update={"allow_management": "never"}))
        log.warning("secret")
        packets, end = await line.until_end(channel)
        assert end["error"]["errorData"]["code"] == "forbidden"
        assert "secret" not in str(packets)
        assert (await line.stream("streamLogs"))[1]["error"]["errorData"]["code"] == "forbidden"


async def test_who_is_slow_loses_the_oldest() -> None:
    news = News()
    for number in range(MOST_KEPT + 3):
        news.add({"number": number}, at=float(number))
    assert await news.next() == (3.0, {"number": 3})
    news.end()
    assert await news.next() is None
