"""The body of POST /api/v1/chat, and what llama.cpp's OpenAI-shaped server is asked for it.

A chat is what was said before, from the store, and one new message of the user: the `input`, of text and images. A
system prompt that is sent anew takes the place of the one before; models know one alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from llamarunner.dialects.lmstudio.errors import InvalidValue

Document = dict[str, Any]
Setting = Literal["off", "low", "medium", "high", "on"]
LEVELS = ("low", "medium", "high")
RESPONSE_ID = r"^resp_"
MOST_TOKENS = 2**31 - 1
MOST_CONTEXT = 2**22


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", protected_namespaces=())


class Part(Strict):
    """A text, or an image."""

    type: Literal["text", "message", "image"]
    content: str | None = Field(None, description="Of a text.")
    data_url: str | None = Field(
        None, pattern=r"^data:image/[a-zA-Z0-9.+-]+;base64,", description="Of an image; it must hold the image itself."
    )

    @model_validator(mode="after")
    def _whole(self) -> Part:
        has, lacks = ("data_url", "content") if self.type == "image" else ("content", "data_url")
        _check(self, {has}, {lacks})
        return self


class Integration(Strict):
    """Where tools come from: a plugin of the server's, or an MCP server that the request names."""

    type: Literal["plugin", "ephemeral_mcp"]
    id: str | None = Field(None, min_length=1, description="Of a plugin, such as mcp/playwright.")
    server_label: str | None = Field(None, min_length=1, description="Of an MCP server.")
    server_url: str | None = Field(None, min_length=1, description="Of an MCP server.")
    allowed_tools: list[str] | None = Field(None, description="Tools that the model may call; null is all.")
    headers: dict[str, str] | None = Field(None, repr=False, description="For an MCP server.")

    @model_validator(mode="after")
    def _whole(self) -> Integration:
        if self.type == "plugin":
            _check(self, {"id"}, {"server_label", "server_url", "headers"})
        else:
            _check(self, {"server_label", "server_url"}, {"id"})
        return self


def _check(item: Part | Integration, has: set[str], lacks: set[str]) -> None:
    """Refuse an object that lacks a key of its type, or has one of another."""
    given = {name for name in has | lacks if getattr(item, name) is not None}
    for name in sorted(has - given):
        raise PydanticCustomError("incomplete", "an item of type '{type}' needs '{name}'", _about(item, name))
    for name in sorted(lacks & given):
        raise PydanticCustomError("foreign", "an item of type '{type}' has no '{name}'", _about(item, name))


def _about(item: Part | Integration, name: str) -> dict[str, Any]:
    return {"type": item.type, "name": name}


def _parts(value: object) -> object:
    return [{"type": "text", "content": value}] if isinstance(value, str) else value


def _plugin(value: object) -> object:
    return {"type": "plugin", "id": value} if isinstance(value, str) else value


Input = Annotated[
    list[Part],  # no tuple: behind a validator of ours nothing is JSON any more, where strictness would take one
    BeforeValidator(_parts, json_schema_input_type=str | list[Part]),
    Field(min_length=1),
]
AnIntegration = Annotated[Integration, BeforeValidator(_plugin, json_schema_input_type=str | Integration)]
Share = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


class ChatRequest(Strict):
    """What is new in a chat, and how it is to be answered."""

    model: str = Field(min_length=1, description="Key of a model, or id of a loaded instance.")
    input: Input = Field(description="The new message: a text, or texts and images.")
    system_prompt: str | None = Field(None, description="What the model is to be; it stays for the rest of the chat.")
    integrations: tuple[AnIntegration, ...] = Field((), description="Plugins and MCP servers whose tools may be used.")
    stream: bool = Field(False, description="Answer by server-sent events.")
    temperature: Share | None = Field(None, description="0 is deterministic.")
    top_p: Share | None = Field(None, description="Least cumulative probability of the tokens to choose from.")
    top_k: int | None = Field(None, ge=0, le=MOST_TOKENS, description="How many tokens to choose from.")
    min_p: Share | None = Field(None, description="Least probability of a token.")
    repeat_penalty: float | None = Field(None, ge=0, le=1e6, description="1 is none.")
    max_output_tokens: Tokens | None = Field(None, description="Most tokens that a round of the answer may have.")
    reasoning: Setting | None = Field(None, description="Whether, or how hard, the model thinks.")
    context_length: int | None = Field(
        None, ge=1, le=MOST_CONTEXT, description="For the model, if this request loads it."
    )
    store: bool = Field(True, description="Keep the chat; the answer has a `response_id`.")
    previous_response_id: str | None = Field(None, pattern=RESPONSE_ID, description="Response to go on from.")

    @property
    def sees(self) -> bool:
        """Whether there are images."""
        return any(part.type == "image" for part in self.input)


def check_reasoning(model_id: str, wanted: Setting | None, allowed: Sequence[str]) -> None:
    """Raise InvalidValue for a setting that the model does not have."""
    if wanted is None or wanted in allowed:
        return
    supported = ", ".join(f"'{one}'" for one in allowed) or "none"
    raise InvalidValue(
        f"Reasoning setting '{wanted}' is not supported by model '{model_id}'. Supported settings: {supported}.",
        param="reasoning",
    )


def user_message(asked: ChatRequest) -> Document:
    """The new message, as OpenAI writes it."""
    if len(asked.input) == 1 and asked.input[0].type != "image":
        return {"role": "user", "content": asked.input[0].content}
    return {"role": "user", "content": [_part(part) for part in asked.input]}


def messages(system: str | None, said: Sequence[Document]) -> list[Document]:
    """The whole chat, with its one system message first."""
    return ([{"role": "system", "content": system}] if system else []) + list(said)


def sampling(asked: ChatRequest) -> Document:
    """What the body for /v1/chat/completions has besides messages and tools; always for a stream with its progress."""
    chosen = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "min_p": asked.min_p,
        "repeat_penalty": asked.repeat_penalty,
        "max_tokens": asked.max_output_tokens,
        "chat_template_kwargs": _thinking(asked.reasoning),
    }
    streamed = {"stream": True, "return_progress": True, "stream_options": {"include_usage": True}}
    return streamed | {key: value for key, value in chosen.items() if value is not None}


def _part(part: Part) -> Document:
    if part.type == "image":
        return {"type": "image_url", "image_url": {"url": part.data_url}}
    return {"type": "text", "text": part.content}


def _thinking(setting: Setting | None) -> Mapping[str, object] | None:
    if setting is None:
        return None
    effort = {"reasoning_effort": setting} if setting in LEVELS else {}
    return {"enable_thinking": setting != "off", **effort}
