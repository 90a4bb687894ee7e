"""What a model brings along goes before what a request says: its system text, its options, its first messages.

A request's own system text and options win, as Ollama has it. Templates are not among this: a model's process has its
own, from the model's file.

For OpenAI's and Anthropic's paths `passed_on` does the same to what is passed on to the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import ValidationError

from llamarunner.catalog.entry import Preset
from llamarunner.dialects.ollama import asking, options
from llamarunner.dialects.ollama.requests import ChatRequest, EmbeddingRequest, EmbedRequest, GenerateRequest, Message

Document = dict[str, object]

_NAMES = {  # of options that a request may have given under another name
    "n_predict": ("n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens"),
    "stop": ("stop", "stop_sequences"),
}

R = TypeVar("R", ChatRequest, GenerateRequest, EmbedRequest, EmbeddingRequest)


def with_options(request: R, preset: Preset) -> R:
    if not preset.parameters:
        return request
    return request.model_copy(update={"options": {**preset.parameters, **request.options}})


def chat(request: ChatRequest, preset: Preset) -> ChatRequest:
    """One without messages, which only loads the model, stays without."""
    request, said = with_options(request, preset), request.messages
    if not said or not (preset.system or preset.messages):
        return request
    first = _messages(preset)
    if preset.system and said[0].role.lower() != "system":
        first.insert(0, Message(role="system", content=preset.system))
    return request.model_copy(update={"messages": [*first, *said]})


def generate(request: GenerateRequest, preset: Preset) -> GenerateRequest:
    """A prompt that is used as it stands gets no system text."""
    request = with_options(request, preset)
    if request.raw or request.suffix or request.system or not preset.system:
        return request
    return request.model_copy(update={"system": preset.system})


def passed_on(path: str, document: Mapping[str, object], preset: Preset) -> Document:
    """A document for one of llama.cpp's paths, with what the model brings along. Raises WrongOption."""
    told = dict(document)
    if path.startswith("/v1/responses"):
        first = [_item(one) for one in _messages(preset)]
        told |= _instructed(told, "instructions", preset) | _begun(told, "input", first)
    elif path.startswith("/v1/messages"):
        first = [one for one in _said(preset) if one["role"] in ("user", "assistant")]
        told |= _instructed(told, "system", preset) | _begun(told, "messages", first)
    elif path in ("/v1/chat/completions", "/apply-template"):
        first = _said(preset)
        if preset.system and not _has_system(told):
            first.insert(0, {"role": "system", "content": preset.system})
        told |= _begun(told, "messages", first)
    elif path not in ("/v1/completions", "/infill"):
        return told
    for name, value in options.given(preset.parameters).items():
        if all(told.get(other) is None for other in _NAMES.get(name, (name,))):
            told["stop_sequences" if name == "stop" and path.startswith("/v1/messages") else name] = value
    return told


def _instructed(document: Mapping[str, object], field: str, preset: Preset) -> Document:
    return {field: preset.system} if preset.system and not document.get(field) else {}


def _begun(document: Mapping[str, object], field: str, first: list[Document]) -> Document:
    """The messages of a document with others before them; none of it for what has none."""
    said: Any = document.get(field)
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    return {field: [*first, *said]} if first and said and isinstance(said, list) else {}


def _has_system(document: Mapping[str, object]) -> bool:
    messages = document.get("messages")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and first.get("role") in ("system", "developer")


def _said(preset: Preset) -> list[Document]:
    return asking.messages(_messages(preset))


def _item(said: Message) -> Document:
    """A message as an item of the Responses API; what an assistant said needs its longer form."""
    if said.role.lower() != "assistant":
        return {"role": said.role.lower(), "content": said.content}
    content = [{"type": "output_text", "text": said.content}]
    return {"type": "message", "role": "assistant", "status": "completed", "content": content}


def _messages(preset: Preset) -> list[Message]:
    """The model's messages; those that are none are passed over."""
    said = []
    for one in preset.messages:
        with suppress(ValidationError):
            said.append(Message.model_validate(dict(one)))
    return said
