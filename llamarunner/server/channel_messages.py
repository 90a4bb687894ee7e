"""The messages of the websocket, in both directions. `docs/websocket.md` has an example of each.

All are JSON objects with a `type`. What a client sends is checked against these classes, strictly.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from llamarunner.dialects import openai, strict_json
from llamarunner.errors import InvalidRequest, LlamaRunnerError

MOST_GLOBS = 32
MOST_LOGS = 8
MOST_TAIL = 1000  # lines

Id = Annotated[str, Field(min_length=1, max_length=100)]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Glob = Annotated[str, Field(min_length=1, max_length=100)]
Object = dict[str, Any]


class Message(BaseModel):
    """What both directions have in common."""

    model_config = ConfigDict(frozen=True)

    @property
    def text(self) -> bytes:
        """The message as it is sent."""
        return self.__pydantic_serializer__.to_json(self, exclude_unset=True)


# ── from clients ───────────────────────────────────────────────────────────────────────────────────────────────────


class Asked(Message):
    """What clients send is strict: a field that we do not know is a mistake of theirs, and told."""

    model_config = ConfigDict(extra="forbid")


class ChatMessage(Asked):
    """Ask a model. The answer is `chat_start`, `chat_delta`s and `chat_end`, or an `error`."""

    type: Literal["chat_message"]
    id: Id | None = Field(None, description="Tells the chats of this connection apart; chosen by the server if absent.")
    model: ModelName | None = Field(None, description="Any name of a model; absent for the only one there is.")
    message: str | None = Field(None, description="One message of the user; absent if there are `messages`.")
    messages: list[Object] | None = Field(None, description="The whole conversation, as in POST /v1/chat/completions.")
    options: Object = Field({}, description="Any other field of POST /v1/chat/completions, such as temperature.")


class Cancel(Asked):
    """End a chat; it answers with `chat_end`."""

    type: Literal["cancel"]
    id: Id = Field(description="The id of the chat.")


class Ping(Asked):
    """Ask for a `pong`."""

    type: Literal["ping"]
    id: Id | None = Field(None, description="Comes back in the pong.")


class Subscribe(Asked):
    """Ask for events, and for what models print, besides what was asked for before."""

    type: Literal["subscribe"]
    id: Id | None = Field(None, description="Comes back in the answer.")
    events: list[Glob] = Field([], max_length=MOST_GLOBS, description="Globs of names of events, such as `model.*`.")
    logs: list[ModelName] = Field([], max_length=MOST_LOGS, description="Models whose log is wanted.")
    tail: int = Field(0, ge=0, le=MOST_TAIL, description="How many of the last lines of those logs come first.")


class Unsubscribe(Asked):
    """Ask for some events or logs no longer; for none at all if neither is named."""

    type: Literal["unsubscribe"]
    id: Id | None = Field(None, description="Comes back in the answer.")
    events: list[Glob] = Field([], max_length=MOST_GLOBS, description="Globs, as they were subscribed to.")
    logs: list[ModelName] = Field([], max_length=MOST_LOGS, description="Models.")


# ── from the server ────────────────────────────────────────────────────────────────────────────────────────────────


class ChatStart(Message):
    """A chat is accepted; its model may have to be loaded first."""

    type: Literal["chat_start"]
    id: str
    model: str = Field(description="The id of the model.")
    request_id: str = Field(description="Under which the server's log has it.")


class ChatDelta(Message):
    """A piece of an answer; what it is no piece of is absent."""

    type: Literal["chat_delta"]
    id: str
    content: str | None = Field(None, description="More of the text.")
    reasoning_content: str | None = Field(None, description="More of what the model thinks before it answers.")
    tool_calls: list[Object] | None = Field(None, description="More of calls of tools, as in OpenAI's streams.")
    logprobs: Object | None = Field(None, description="Log probabilities, if they were asked for.")


class ChatEnd(Message):
    """An answer is complete, or was cancelled."""

    type: Literal["chat_end"]
    id: str
    model: str
    finish_reason: str = Field(description="`stop`, `length`, `tool_calls`, or `cancelled`.")
    usage: Object | None = Field(description="Tokens of the prompt and of the answer; null if it was cancelled.")


class Pong(Message):
    """The answer to a ping."""

    type: Literal["pong"]
    id: str | None


class Subscribed(Message):
    """What this connection is subscribed to from now on."""

    type: Literal["subscribed", "unsubscribed"]
    id: str | None
    events: list[str]
    logs: list[str]


class EventMessage(Message):
    """Something happened."""

    type: Literal["event"]
    event: str = Field(description="Its name, such as `model.started`.")
    timestamp: str = Field(description="UTC, ISO 8601.")
    data: Object


class EventsLost(Message):
    """This client was too slow: so many events are not told, from before the next one."""

    type: Literal["events_lost"]
    count: int


class LogLines(Message):
    """What a model's process printed."""

    type: Literal["log"]
    model: str
    lines: list[str]
    lost: int = Field(description="How many lines before these this client was too slow for.")


class Fault(Message):
    """An error as all our answers have it; some say more."""

    model_config = ConfigDict(extra="allow")

    code: str
    message: str
    type: str
    param: str | None = Field(description="The field at fault.")


class ErrorMessage(Message):
    """A message was refused, or a chat failed. The connection stays open."""

    type: Literal["error"]
    id: str | None = Field(description="Of the message or chat; null if it had none.")
    error: Fault
    retry_after: float | None = Field(description="Seconds after which it may be tried again, if that is known.")


FromClient = ChatMessage | Cancel | Ping | Subscribe | Unsubscribe
FROM_CLIENT: tuple[type[Asked], ...] = (ChatMessage, Cancel, Ping, Subscribe, Unsubscribe)
FROM_SERVER: tuple[type[Message], ...] = (
    *(ChatStart, ChatDelta, ChatEnd, Pong, Subscribed, EventMessage, EventsLost, LogLines),
    ErrorMessage,
)
_ADAPTER: TypeAdapter[FromClient] = TypeAdapter(Annotated[FromClient, Field(discriminator="type")])


def parse(document: dict[str, object]) -> FromClient:
    """Check a client's message. Raises InvalidRequest that names the field."""
    try:
        return _ADAPTER.validate_python(document, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
    if fault["type"].startswith("union_tag"):
        known = ", ".join(kind.model_fields["type"].annotation.__args__[0] for kind in FROM_CLIENT)  # type: ignore[union-attr]
        raise InvalidRequest(f"'type' must be one of {known}.", param="type")
    place = [str(part) for part in fault["loc"][1:]]
    param = ".".join(place)[:200] or None
    if fault["type"] == "extra_forbidden":
        raise InvalidRequest(f"'{param}' is not a field of {document['type']}.", param=param)
    raise InvalidRequest(f"'{param}' is wrong: {fault['msg'][:1].lower()}{fault['msg'][1:]}.", param=param)


def refusal(error: LlamaRunnerError, message_id: str | None) -> ErrorMessage:
    """Say one of our errors."""
    fault = Fault.model_validate(openai.error_object(error))
    return ErrorMessage(type="error", id=message_id, error=fault, retry_after=error.retry_after)


def schema() -> dict[str, object]:
    """The JSON Schema of all messages: `$defs` has each, and those that a client or the server may send."""
    wanted = [(kind, "validation") for kind in FROM_CLIENT] + [(kind, "serialization") for kind in FROM_SERVER]
    _, document = models_json_schema(wanted)  # type: ignore[arg-type]
    groups = {"FromClient": FROM_CLIENT, "FromServer": FROM_SERVER}
    for name, kinds in groups.items():
        document["$defs"][name] = {"oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of the websocket /v1/ws",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in groups],
        "$defs": document["$defs"],
    }


def read(text: str) -> dict[str, object]:
    """Read the JSON object of a message. Raises InvalidRequest."""
    try:
        return strict_json.loads_object(text.encode())
    except InvalidRequest as error:
        told = error.message.replace("The request body", "The message")
        raise InvalidRequest(told, param=error.param) from None
