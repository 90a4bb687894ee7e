"""The frames of the websockets that LM Studio's SDKs open, in both directions: one JSON object each.

The first one of a client says who it is; then calls (one answer) and channels (many messages, both ways) share the
socket, told apart by ids of the client's choice. The protocol is that of `@lmstudio/sdk` and `lmstudio` (PyPI): a call
without a result has no key `result`, for null makes the JavaScript client wait for ever; it drops, with a warning,
what does not fit its schemas.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from llamarunner.dialects import strict_json
from llamarunner.errors import InvalidRequest

NO_TOKEN = (
    "This door asks for an API token. The SDKs give it as clientIdentifier and clientPasskey, the halves of a key "
    "'sk-lm-IDENTIFIER:PASSKEY'; newer ones take the key itself from LM_API_TOKEN (JavaScript) or LMSTUDIO_API_TOKEN "
    "(Python, from 1.6)."
)
MOST_UNKNOWN = 5  # warnings about what a client should not send, for each socket


class Sent(BaseModel):
    """What a client sends; keys that we do not know are those of newer clients, and left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, alias_generator=to_camel)


S = TypeVar("S", bound=Sent)
_UUID = re.compile(r"(guest:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Text = Annotated[str, Field(max_length=256)]
Number = Annotated[int, Field(ge=0, lt=2**53)]


class Hello(Sent):
    """Who a client is; with an API token, its two halves."""

    auth_version: Literal[1]
    client_identifier: Annotated[str, Field(min_length=1, max_length=256)]
    client_passkey: Text

    @property
    def of_python(self) -> bool:
        """Whether the client looks like the one for Python, which makes up UUIDs to call itself by."""
        return _UUID.fullmatch(self.client_identifier) is not None


class RpcCall(Sent):
    type: Literal["rpcCall"]
    endpoint: Text
    call_id: Number
    parameter: Any = None


class ChannelCreate(Sent):
    type: Literal["channelCreate"]
    endpoint: Text
    channel_id: Number
    creation_parameter: Any = None


class ChannelSend(Sent):
    type: Literal["channelSend"]
    channel_id: Number
    message: Any = None
    ack_id: Number | None = None


class SignalSubscribe(Sent):
    type: Literal["signalSubscribe", "writableSignalSubscribe"]
    endpoint: Text
    subscribe_id: Number


class KeepAlive(Sent):
    type: Literal["keepAlive"]


class Warned(Sent):
    """The client did not like a frame of ours."""

    type: Literal["communicationWarning"]
    warning: str


class Ignored(Sent):
    """What needs no answer."""

    type: Literal["channelAck", "signalUnsubscribe", "writableSignalUnsubscribe", "writableSignalUpdate"]


FromClient = RpcCall | ChannelCreate | ChannelSend | SignalSubscribe | KeepAlive | Warned | Ignored
_FRAMES: TypeAdapter[FromClient] = TypeAdapter(Annotated[FromClient, Field(discriminator="type")])


def frame(text: str) -> FromClient:
    """Read a frame. Raises InvalidRequest that names the field."""
    document = _object(text)
    try:
        return _FRAMES.validate_python(document)
    except ValidationError as error:
        raise refused(error, skip=1) from None


def hello(text: str) -> Hello:
    """Read a client's first frame. Raises InvalidRequest that names the field."""
    return checked(Hello, _object(text))


def checked(kind: type[S], document: object) -> S:
    """Read what an endpoint takes. Raises InvalidRequest that names the field."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise refused(error) from None


def refused(error: ValidationError, skip: int = 0) -> InvalidRequest:
    """Say the first thing that is wrong; `skip` are the steps to it that no client knows."""
    fault = error.errors(include_url=False, include_input=False)[0]
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault["loc"][skip:]]
    param = "".join(steps).removeprefix(".")[:200] or None
    message = fault["msg"]
    return InvalidRequest(f"'{param or 'parameter'}' is wrong: {message[:1].lower()}{message[1:]}.", param=param)


# ── from the server ────────────────────────────────────────────────────────────────────────────────────────────────


class Void:
    """The result of a call that has none."""


VOID = Void()


def welcome() -> bytes:
    return _said(success=True)


def unwelcome(reason: str, to_python: bool) -> bytes:
    """Refuse a client. The one for Python makes a dict of the error, the one for JavaScript reads a text."""
    return _said(success=False, error={"title": reason, "rootTitle": reason} if to_python else reason)


def rpc_result(call_id: int, result: object) -> bytes:
    told = {} if result is VOID else {"result": result}
    return _said(type="rpcResult", callId=call_id, **told)


def rpc_error(call_id: int, error: object) -> bytes:
    return _said(type="rpcError", callId=call_id, error=error)


def channel_send(channel_id: int, message: object) -> bytes:
    return _said(type="channelSend", channelId=channel_id, message=message)


def channel_ack(channel_id: int, ack_id: int) -> bytes:
    return _said(type="channelAck", channelId=channel_id, ackId=ack_id)


def channel_close(channel_id: int) -> bytes:
    return _said(type="channelClose", channelId=channel_id)


def channel_error(channel_id: int, error: object) -> bytes:
    return _said(type="channelError", channelId=channel_id, error=error)


def signal_error(kind: str, subscribe_id: int, error: object) -> bytes:
    """`kind` is the type of the frame that asked."""
    told = "writableSignalError" if kind.startswith("writable") else "signalError"
    return _said(type=told, subscribeId=subscribe_id, error=error)


def keep_alive_ack() -> bytes:
    return _said(type="keepAliveAck")


def warning(text: str, kind: str | None = None) -> bytes:
    """`kind` is a name that clients know, such as `rpcEndpointUnknown`."""
    return _said(type="communicationWarning", warning=text, **({"kind": kind} if kind else {}))


def _said(**fields: object) -> bytes:
    return strict_json.dumps(fields)


def _object(text: str) -> dict[str, object]:
    try:
        return strict_json.loads_object(text.encode())
    except InvalidRequest as error:
        raise InvalidRequest(error.message.replace("The request body", "The frame"), param=error.param) from None
