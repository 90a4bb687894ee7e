"""The frames of LM Studio's sockets."""

from __future__ import annotations

import json

import pytest

from llamarunner.dialects.lmstudio import sdk_frames as frames
from llamarunner.errors import InvalidRequest


@pytest.mark.parametrize(
    ("document", "kind", "facts"),
    [
        ({"type": "rpcCall", "endpoint": "e", "callId": 0}, frames.RpcCall, {"call_id": 0, "parameter": None}),
        (
            {"type": "channelCreate", "endpoint": "e", "channelId": 3, "creationParameter": {"a": [1]}, "new": 1},
            frames.ChannelCreate,
            {"channel_id": 3, "creation_parameter": {"a": [1]}},
        ),
        (
            {"type": "channelSend", "channelId": 3, "message": None, "ackId": 9},
            frames.ChannelSend,
            {"message": None, "ack_id": 9},
        ),
        ({"type": "keepAlive"}, frames.KeepAlive, {}),
        ({"type": "communicationWarning", "warning": "w"}, frames.Warned, {"warning": "w"}),
        ({"type": "channelAck", "channelId": 1, "ackId": 2}, frames.Ignored, {}),
        (
            {"type": "writableSignalSubscribe", "endpoint": "e", "subscribeId": 1, "creationParameter": 2},
            frames.SignalSubscribe,
            {"subscribe_id": 1},
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_frames_of_clients(document: object, kind: type[frames.Sent], facts: dict[str, object]) -> None:
    read = frames.frame(json.dumps(document))
    assert type(read) is kind
    assert {name: getattr(read, name) for name in facts} == facts


@pytest.mark.parametrize(
    ("text", "param", "said"),
    [
        ("", None, "empty"),
        ('"text"', None, "The frame must be a JSON object"),
        ('{"type": "rpcCall", "endpoint": "e", "callId": 1.5}', "callId", "integer"),
        ('{"type": "rpcCall", "endpoint": "e", "callId": 9007199254740992}', "callId", "less than"),
        ('{"type": "rpcCall", "callId": 1}', "endpoint", "required"),
        ('{"endpoint": "e", "callId": 1}', None, "type"),
    ],
)
def test_what_is_no_frame(text: str, param: str | None, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        frames.frame(text)
    assert refused.value.param == param
    assert said in refused.value.message


def test_the_first_frame() -> None:
    read = frames.hello('{"authVersion": 1, "clientIdentifier": "guest:1", "clientPasskey": "p", "more": 1}')
    assert (read.client_identifier, read.client_passkey) == ("guest:1", "p")
    with pytest.raises(InvalidRequest, match="clientPasskey"):
        frames.hello(json.dumps({"authVersion": 1, "clientIdentifier": "a", "clientPasskey": "p" * 257}))


def test_what_an_endpoint_takes_is_named_from_there() -> None:
    with pytest.raises(InvalidRequest) as refused:
        frames.checked(frames.ChannelSend, {"type": "channelSend", "channelId": "1"})
    assert refused.value.param == "channelId"
    with pytest.raises(InvalidRequest, match="'parameter' is wrong"):
        frames.checked(frames.ChannelSend, None)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (frames.welcome(), {"success": True}),
        (frames.unwelcome("no", to_python=False), {"success": False, "error": "no"}),
        (frames.unwelcome("no", to_python=True), {"success": False, "error": {"title": "no", "rootTitle": "no"}}),
        (frames.rpc_result(1, None), {"type": "rpcResult", "callId": 1, "result": None}),
        (frames.rpc_result(1, frames.VOID), {"type": "rpcResult", "callId": 1}),
        (frames.rpc_error(1, {}), {"type": "rpcError", "callId": 1, "error": {}}),
        (frames.channel_send(2, {}), {"type": "channelSend", "channelId": 2, "message": {}}),
        (frames.channel_ack(2, 3), {"type": "channelAck", "channelId": 2, "ackId": 3}),
        (frames.channel_close(2), {"type": "channelClose", "channelId": 2}),
        (frames.channel_error(2, {}), {"type": "channelError", "channelId": 2, "error": {}}),
        (frames.signal_error("signalSubscribe", 4, {}), {"type": "signalError", "subscribeId": 4, "error": {}}),
        (frames.keep_alive_ack(), {"type": "keepAliveAck"}),
        (frames.warning("w"), {"type": "communicationWarning", "warning": "w"}),
        (frames.warning("w", "k"), {"type": "communicationWarning", "warning": "w", "kind": "k"}),
    ],
    ids=lambda value: str(value.get("type", "hello")) if isinstance(value, dict) else "",
)
def test_frames_of_the_server(frame: bytes, said: object) -> None:
    assert json.loads(frame) == said
