"""What a model brings along goes before what a request says: its system text, its options, its first messages.

A request's own system text and options win, as Ollama has it. Templates are not among this: a model's process has its
own, from the model's file.
"""

from __future__ import annotations

from typing import TypeVar

from llamarunner.catalog.entry import Preset
from llamarunner.dialects.ollama.requests import ChatRequest, EmbeddingRequest, EmbedRequest, GenerateRequest, Message

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
    first = [Message.model_validate(dict(one)) for one in preset.messages]
    if preset.system and said[0].role.lower() != "system":
        first.insert(0, Message(role="system", content=preset.system))
    return request.model_copy(update={"messages": [*first, *said]})


def generate(request: GenerateRequest, preset: Preset) -> GenerateRequest:
    """A prompt that is used as it stands gets no system text."""
    request = with_options(request, preset)
    if request.raw or request.suffix or request.system or not preset.system:
        return request
    return request.model_copy(update={"system": preset.system})
