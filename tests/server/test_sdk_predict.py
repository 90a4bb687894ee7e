"""Predictions through LM Studio's sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from sdk_talking import LONG, Json, asking, dialled, history, named, stack, texts

from llamarunner.config import LoggingSettings

COMPLETING = {
    "layerName": "completeModeFormatting",
    "config": {"fields": [{"key": "llm.prediction.promptTemplate", "value": {"type": "jinja"}}]},
}


def asked_of(house: House, path: str = "/v1/chat/completions") -> Json:
    """What the model was asked last."""
    bodies: list[Json] = [one["body"] for one in house.journal("body") if one["path"] == path]
    return bodies[-1]


async def test_a_prediction_is_fragments_and_a_success(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        info = (await line.rpc("getModelInfo", {"specifier": named("chat"), "throwIfNotFound": True}))["result"]
        config = stack(llm__prediction__temperature=0)
        packets, end = await line.stream("predict", asking(config=config))
        fragment = {
            "content": "t0 ",
            "tokensCount": 1,
            "containsDrafted": False,
            "reasoningType": "none",
            "isStructural": False,
        }
        assert packets[0] == {"type": "fragment", "fragment": fragment}
        assert texts(packets) == "t0 t1 t2 t3 t4 "
        assert end == {"type": "channelClose", "channelId": end["channelId"]}
        last = packets[-1]
        stats = last["stats"]
        assert stats["stopReason"] == "eosFound"
        counted = (stats["promptTokensCount"], stats["predictedTokensCount"], stats["totalTokensCount"])
        assert counted == (3, 5, 8)
        assert 0 < stats["timeToFirstTokenSec"] <= stats["totalTimeSec"]
        assert last["modelInfo"]["identifier"] == info["identifier"]
        assert {"key": "llm.load.contextLength", "value": 4096} in last["loadModelConfig"]["fields"]
        assert last["predictionConfig"] == {"fields": [{"key": "llm.prediction.temperature", "value": 0}]}
        await house.until(lambda: house.leases() == 0)


async def test_it_is_recorded_as_other_requests_are(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        with house.services.bus.subscribe({"request.finished"}) as heard:
            await line.stream("predict", asking())
            await line.stream("predict", asking('{"status": 500, "message": "boom"}'))
            told: list[Any] = []
            async for event in heard:
                told.append(event)
                if len(told) == 2:
                    break
    facts = [(one.method, one.path, one.status, one.model_id, one.completion_tokens, one.stream) for one in told]
    assert facts == [
        ("SDK", "/llm/predict", 200, "chat", 5, True),
        ("SDK", "/llm/predict", 500, "chat", None, True),
    ]


async def test_cancel_is_a_success_of_its_own(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        channel = await line.open("predict", asking(LONG))
        await line.packet(channel, "fragment")
        await line.stop(channel)
        packets, end = await line.until_end(channel)
        assert (packets[-1]["type"], packets[-1]["stats"]["stopReason"]) == ("success", "userStopped")
        assert end["type"] == "channelClose"
        await house.wait_for("hangup")
        assert house.leases() == 0


async def test_cancel_in_the_same_breath_is_not_lost(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        for _ in range(5):
            channel = await line.open("predict", asking(LONG))
            await line.stop(channel)
            packets, _ = await line.until_end(channel)
            assert packets[-1]["stats"]["stopReason"] == "userStopped"


async def test_several_at_once_are_told_apart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        channels = {await line.open("predict", asking(json.dumps({"tokens": n, "delay": 0.01}))): n for n in (3, 9, 6)}
        told: dict[int, list[Json]] = {channel: [] for channel in channels}
        order = []
        while not all(packets and packets[-1]["type"] == "success" for packets in told.values()):
            frame = await line.next("channelSend")
            told[frame["channelId"]].append(frame["message"])
            order.append(frame["channelId"])
    for channel, count in channels.items():
        assert texts(told[channel]) == "".join(f"t{n} " for n in range(count))
    assert order != sorted(order), "they ran one after the other"


async def test_thoughts_and_calls_of_tools(tmp_path: Path) -> None:
    calls = [
        {"index": 0, "id": "theirs", "function": {"name": "add", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "function": {"name": "now", "arguments": ""}},
    ]
    deltas = [{"reasoning_content": "hm"}, {"content": "yes"}, *({"tool_calls": [call]} for call in calls)]
    tools = {"type": "toolArray", "tools": [{"type": "function", "function": {"name": "add"}}]}
    config = stack(llm__prediction__tools=tools, llm__prediction__toolChoice={"type": "generic", "mode": "required"})
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        packets, _ = await line.stream("predict", asking(json.dumps({"deltas": deltas}), config))
        assert (asked_of(house)["tools"], asked_of(house)["tool_choice"]) == (tools["tools"], "required")
    said = [(one["fragment"]["content"], one["fragment"]["reasoningType"]) for one in packets if "fragment" in one]
    assert said == [
        ("<think>", "reasoningStartTag"),
        ("hm", "reasoning"),
        ("</think>", "reasoningEndTag"),
        ("yes", "none"),
    ]
    kinds = [one["type"].removeprefix("toolCallGeneration") for one in packets[len(said) : -1]]
    argument = "ArgumentFragmentGenerated"
    assert kinds == ["Start", "NameReceived", argument, argument, "End", "Start", "NameReceived", "End"]
    first, second = (one["toolCallRequest"] for one in packets if one["type"] == "toolCallGenerationEnd")
    assert first == {"id": first["id"], "type": "function", "name": "add", "arguments": {"a": 1}}
    assert (second["name"], second["arguments"]) == ("now", {})
    assert first["id"].isdecimal()
    assert len(first["id"]) == 9
    assert packets[-1]["stats"]["stopReason"] == "toolCalls"


async def test_the_next_round_has_the_calls_and_their_results(tmp_path: Path) -> None:
    request = {"id": "7", "type": "function", "name": "add", "arguments": {"a": 1}}
    said = [{"type": "text", "text": "so"}, {"type": "toolCallRequest", "toolCallRequest": request}]
    result = {"type": "toolCallResult", "content": "3", "toolCallId": "7"}
    rest = [{"role": "assistant", "content": said}, {"role": "tool", "content": [result]}]
    told = {"messages": [*history("hello")["messages"], *rest]}
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        await line.stream("predict", {**asking(), "history": told})
        _, assistant, tool = asked_of(house)["messages"]
    function = {"name": "add", "arguments": '{"a":1}'}
    call = {"id": "7", "type": "function", "function": function}
    assert assistant == {"role": "assistant", "content": "so", "tool_calls": [call]}
    assert tool == {"role": "tool", "content": "3", "tool_call_id": "7"}


async def test_a_text_is_completed_without_a_template(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        config = stack(llm__prediction__maxPredictedTokens={"checked": True, "value": 9})
        config["layers"].append(COMPLETING)
        packets, _ = await line.stream("predict", asking("Once upon", config))
        assert texts(packets) == "t0 t1 t2 t3 t4 "
        asked = asked_of(house, "/v1/completions")
        assert (asked["prompt"], asked["max_tokens"]) == ("Once upon", 9)
        raw = {"modelSpecifier": named("chat"), "rawPrompt": "A time", "predictionConfigStack": stack()}
        packets, _ = await line.stream("completeRawText", raw)
        assert texts(packets) == "t0 t1 t2 t3 t4 "
        assert asked_of(house, "/v1/completions")["prompt"] == "A time"


async def test_what_a_structured_answer_is_to_be_and_no_thoughts(tmp_path: Path) -> None:
    schema = {"type": "object"}
    config = stack(llm__prediction__structured={"type": "json", "jsonSchema": schema})
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        fake = json.dumps({"deltas": [{"reasoning_content": "hm"}, {"content": "{}"}]})
        packets, _ = await line.stream("predict", asking(fake, config))
        asked = asked_of(house)
    assert texts(packets) == "{}"
    assert asked["response_format"]["json_schema"]["schema"] == schema
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}


async def test_a_conversation_that_is_too_long_loses_its_oldest(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--ctx-size", "100")) as house, dialled(house, "llm") as line:
        await line.load("chat")
        asked = {**asking(), "history": history("x" * 90, "y" * 30)}
        packets, end = await line.stream("predict", asked)
        assert (texts(packets), end["type"]) == ("t0 t1 t2 t3 t4 ", "channelClose")
        assert [one["content"][0] for one in asked_of(house)["messages"]] == ["y"]
        asked["predictionConfigStack"] = stack(llm__prediction__contextOverflowPolicy="stopAtLimit")
        packets, end = await line.stream("predict", asked)
        assert (packets, end["error"]["errorData"]["code"]) == ([], "context_length_exceeded")


@pytest.mark.parametrize(
    ("fake", "code"),
    [
        ({"status": 400, "message": "no such thing"}, "invalid_request"),
        ({"then": "die"}, "server_error"),
        ({"then": "stop"}, "server_error"),
    ],
    ids=["refused", "died", "cut"],
)
async def test_a_prediction_that_fails_says_so_and_the_socket_stays(tmp_path: Path, fake: Json, code: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        packets, end = await line.stream("predict", asking(json.dumps(fake)))
        assert (end["type"], end["error"]["errorData"]["code"]) == ("channelError", code)
        assert all(packet["type"] == "fragment" for packet in packets)
        assert "result" in await line.rpc("listLoaded")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"history": {}}, "history.messages"),
        ({"history": {"messages": []}}, "messages"),
        ({"history": {"messages": [{"role": "user", "content": "text"}]}}, "history.messages[0].content"),
        ({"predictionConfigStack": {}}, "layers"),
        ({"predictionConfigStack": stack(llm__prediction__temperature="hot")}, "llm.prediction.temperature"),
        ({"predictionConfigStack": stack(llm__prediction__promptTemplate={})}, "llm.prediction.promptTemplate"),
        ({"modelSpecifier": {}}, "modelSpecifier.type"),
    ],
)
async def test_mistakes_are_told_with_their_place(tmp_path: Path, change: Json, param: str) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        packets, end = await line.stream("predict", asking() | change)
        assert (packets, end["type"], end["error"]["errorData"]["param"]) == ([], "channelError", param)


async def test_there_are_no_presets(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        _, end = await line.stream("predict", asking(fuzzyPresetIdentifier="mine"))
        display = end["error"]["displayData"]
        assert (display["code"], display["totalAvailablePresets"]) == ("generic.presetNotFound", 0)


async def test_what_is_not_loaded_is_not_found(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        _, end = await line.stream("predict", asking())
        display = {
            "code": "generic.noModelMatchingQuery",
            "query": {"identifier": "chat"},
            "loadedModelsSample": [],
            "totalLoadedModels": 0,
        }
        assert end["error"]["displayData"] == display
        await line.load("chat")
        gone = {"type": "instanceReference", "instanceReference": "of yesterday"}
        _, end = await line.stream("predict", asking() | {"modelSpecifier": gone})
        assert end["error"]["displayData"] == {"code": "generic.specificModelUnloaded"}


async def test_prompts_are_logged_for_owners_who_want_that(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llamarunner.prompts")
    async with open_house(tmp_path, logging=LoggingSettings(prompts=True)) as house, dialled(house, "llm") as line:
        await line.load("chat")
        await line.stream("predict", asking("between us"))
    assert "between us" in caplog.text
