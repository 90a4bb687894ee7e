"""Ollama's requests, said as llama.cpp's OpenAI-shaped server wants them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence

from llamarunner.dialects.ollama.errors import WrongOption
from llamarunner.dialects.ollama.options import sampling
from llamarunner.dialects.ollama.requests import ChatRequest, GenerateRequest, Inference, Message, ToolCall
from llamarunner.dialects.strict_json import dumps

Document = dict[str, object]

_IMAGES = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"))
_SOUNDS = ((b"ID3", "mp3"), (b"\xff\xfb", "mp3"), (b"\xff\xf3", "mp3"), (b"fLaC", "flac"), (b"OggS", "ogg"))


def chat(request: ChatRequest, context: int) -> Document:
    """The body for /v1/chat/completions; `context` is how many tokens the model has for one request."""
    document = _common(request, context) | {"messages": messages(request.messages)}
    return document | ({"tools": request.tools} if request.tools else {})


def generate(request: GenerateRequest, context: int) -> Document:
    """The body for /v1/chat/completions of a prompt that is to be put into the model's template."""
    system = [Message(role="system", content=request.system)] if request.system else []
    user = Message(role="user", content=request.prompt, images=request.images)
    return _common(request, context) | {"messages": messages([*system, user])}


def complete(request: GenerateRequest, prompt: str | list[object], context: int) -> Document:
    """The body for /v1/completions of a prompt that is used as it stands: text, or tokens and text."""
    counted = {"logprobs": max(1, request.top_logprobs)} if _wants_logprobs(request) else {}
    return _sampled(request, context) | _schema(request.format) | counted | {"prompt": prompt}


def infill(request: GenerateRequest, context: int) -> Document:
    """The body for /infill: what stands before the gap, and after it."""
    counted = {"n_probs": max(1, request.top_logprobs)} if _wants_logprobs(request) else {}
    gap = {"input_prefix": request.prompt, "input_suffix": request.suffix, "prompt": ""}
    return _sampled(request, context) | _schema(request.format) | counted | gap


def messages(given: Iterable[Message]) -> list[Document]:
    """OpenAI's messages. Calls without an id get one, and results without an id are those of the oldest such call."""
    said: list[Document] = []
    waiting: list[tuple[str, str]] = []  # ids and names of calls whose result is still to come
    for message in given:
        calls = [_call(one, f"call_{len(said)}_{number}") for number, one in enumerate(message.tool_calls)]
        waiting += [(str(call["id"]), one.function.name) for call, one in zip(calls, message.tool_calls, strict=True)]
        answered = _answered(message, waiting) if message.role.lower() == "tool" else ""
        said.append(_message(message, calls, answered))
    return said


def data_url(data: bytes) -> str:
    """An image as a data URL, with the type that its first bytes tell."""
    kind = next((kind for magic, kind in _IMAGES if data.startswith(magic)), "jpeg")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "webp"
    return f"data:image/{kind};base64,{b64encode(data).decode()}"


def _sampled(request: Inference, context: int) -> Document:
    usage = {"stream_options": {"include_usage": True}} if request.stream else {}
    return {"stream": request.stream, **usage, "cache_prompt": True, **sampling(request.options, context)}


def _wants_logprobs(request: Inference) -> bool:
    return request.logprobs or request.top_logprobs > 0


def _common(request: Inference, context: int) -> Document:
    document = _sampled(request, context)
    if shape := _response_format(request.format):
        document["response_format"] = shape
    if request.think is not None:
        effort = {"reasoning_effort": request.think} if isinstance(request.think, str) else {}
        document["chat_template_kwargs"] = {"enable_thinking": bool(request.think), **effort}
    if _wants_logprobs(request):
        document |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs)}
    return document


def _schema(wanted: object) -> Document:
    """The same for paths that know no `response_format`."""
    shape = _response_format(wanted)
    return {"json_schema": wanted if isinstance(wanted, Mapping) else {"type": "object"}} if shape else {}


def _response_format(wanted: object) -> Document | None:
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return {"type": "json_object"}
    if isinstance(wanted, Mapping):
        return {"type": "json_schema", "json_schema": {"name": "schema", "schema": wanted}}
    said = dumps(dumps(wanted).decode()[:100]).decode()
    raise WrongOption(f'invalid format: {said}; expected "json" or a valid JSON Schema object', param="format")


def _message(message: Message, calls: Sequence[Document], answered: str) -> Document:
    said: Document = {"role": message.role.lower(), "content": _content(message)}
    extra = {
        "reasoning_content": message.thinking,
        "tool_calls": calls,
        "name": message.tool_name,
        "tool_call_id": answered,
    }
    return said | {key: value for key, value in extra.items() if value}


def _content(message: Message) -> object:
    if not message.images:
        return message.content
    text = [{"type": "text", "text": message.content}] if message.content else []
    return text + [_medium(image) for image in message.images]


def _medium(text: str) -> Document:
    """A part of a message: an image, or sound, which Ollama's clients send as images too."""
    data = b64decode(text)
    sound = next((kind for magic, kind in _SOUNDS if data.startswith(magic)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        sound = "wav"
    if sound:
        return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": sound}}
    return {"type": "image_url", "image_url": {"url": data_url(data)}}


def _call(call: ToolCall, spare: str) -> Document:
    function = {"name": call.function.name, "arguments": dumps(call.function.arguments).decode()}
    return {"id": call.id or spare, "type": "function", "function": function}


def _answered(message: Message, waiting: list[tuple[str, str]]) -> str:
    """Take the call that a result belongs to from those that wait."""
    wanted = message.tool_call_id
    fits = (
        at
        for at, (call_id, name) in enumerate(waiting)
        if (call_id == wanted if wanted else name == message.tool_name or not message.tool_name)
    )
    at = next(fits, None)
    return waiting.pop(at)[0] if at is not None else wanted
