"""The wrapper API, `/api/lmstudio/*`: what its bodies mean in OpenAI's language, and how its answers are told.

Its models are read from what LM Studio's REST API tells, version 1 or 0: this server's own, or another's, which may say
anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from llamarunner.dialects.lmstudio.errors import InvalidValue, MissingParameter, NoModelNamed
from llamarunner.dialects.lmstudio.managing import Body, Name
from llamarunner.errors import BackendFailed, ModelNotFound

Object = dict[str, Any]
Kind = Literal["llm", "embedding"]

DEFAULTS: Mapping[str, object] = {"temperature": 0.7, "max_tokens": 512}
KINDS: tuple[Kind, ...] = ("llm", "embedding")
SCHEMA_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
MOST_TTL = 365 * 86_400  # seconds


# ── bodies ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class WrapperLoad(Body):
    """Which model to load."""

    model_key: Name = Field(description="The key of the model, or any of its names.")
    ttl: float | None = Field(
        None, gt=0, le=MOST_TTL, description="Seconds of idleness after which it is unloaded; else it stays."
    )


class Sampled(Body):
    """What all questions to a model have."""

    model: Name | None = Field(None, description="The key of the model; else the only one loaded, or present.")
    temperature: float | None = Field(None, ge=0, le=100, description="Null is 0.7.")
    max_tokens: int | None = Field(None, ge=-1, le=16_777_216, description="Most tokens of the answer; null is 512.")
    stream: bool | None = Field(None, description="Send the answer as it is made, in OpenAI's chunks with a text.")


class VisionRequest(Sampled):
    """An image, and what to say about it."""

    prompt: Annotated[str, Field(min_length=1)] = Field(description="The question.")
    image_path: Annotated[str, Field(min_length=1)] = Field(
        description="A data URL, or the path of an image below a folder that the owner allows (wrapper.image_folders)."
    )


class WrapperTool(Body):
    """A function that the model may want to be called."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: dict[str, JsonValue] = Field(
        {}, description='Either {"a": {"type": "number"}, …}, each of which is required, or a JSON Schema of an object.'
    )


class ToolsRequest(Sampled):
    """A question, and the functions that the client can call. To go on, send `messages` with what they gave."""

    prompt: Annotated[str, Field(min_length=1)] | None = Field(None, description="The question.")
    messages: list[dict[str, JsonValue]] | None = Field(
        None, description="Instead of the prompt: the talk so far, the calls and their results (role tool) included."
    )
    tools: list[WrapperTool] = Field(min_length=1, max_length=128)


def with_defaults(document: Mapping[str, object]) -> dict[str, object]:
    """A body in OpenAI's language with the wrapper's defaults; null is what is absent."""
    given = {name: value for name, value in document.items() if value is not None}
    absent = {"max_tokens"} if "max_completion_tokens" in given else set()
    return {**{name: value for name, value in DEFAULTS.items() if name not in absent}, **given}


def vision_document(asked: VisionRequest, data_url: str) -> dict[str, object]:
    """The chat that shows a model an image."""
    parts = [{"type": "text", "text": asked.prompt}, {"type": "image_url", "image_url": {"url": data_url}}]
    return _sampled(asked, [{"role": "user", "content": parts}])


def tools_document(asked: ToolsRequest) -> dict[str, object]:
    """The chat in which a model may call functions. Raises InvalidRequest that names the field."""
    if asked.prompt is not None and asked.messages is not None:
        raise InvalidValue("'prompt' and 'messages' exclude each other.", param="messages")
    if asked.prompt is None and asked.messages is None:
        raise MissingParameter("prompt")
    messages = asked.messages if asked.messages is not None else [{"role": "user", "content": asked.prompt}]
    names = [tool.name for tool in asked.tools]
    if len(set(names)) < len(names):
        raise InvalidValue("'tools' has two functions of one name.", param="tools")
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": schema_of(tool.parameters, f"tools[{number}].parameters"),
            },
        }
        for number, tool in enumerate(asked.tools)
    ]
    return {**_sampled(asked, messages), "tools": tools}


def schema_of(parameters: Mapping[str, JsonValue], param: str) -> dict[str, object]:
    """The JSON Schema of a function's arguments; what is one already stays. Raises InvalidValue, naming `param`.

    In the short form each argument is required that has no `default` and does not say `"required": false`.
    """
    if isinstance(parameters.get("type"), str) and isinstance(parameters.get("properties", {}), dict):
        if parameters["type"] != "object":
            raise InvalidValue(f"'{param}' is wrong: a schema of arguments has the type object.", param=param)
        return dict(parameters)
    properties: dict[str, object] = {}
    required: list[str] = []
    for name, told in parameters.items():
        if not isinstance(told, dict):
            raise InvalidValue(f"'{param}.{name[:100]}' must be an object such as {{\"type\": …}}.", param=param)
        flag = told.get("required")
        if told.get("type", "string") not in SCHEMA_TYPES and not isinstance(told.get("type"), list):
            listed = ", ".join(SCHEMA_TYPES)
            raise InvalidValue(f"'{param}.{name[:100]}.type' must be one of {listed}.", param=param)
        properties[name] = {key: one for key, one in told.items() if key != "required" or not isinstance(one, bool)}
        if flag is not False and "default" not in told:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _sampled(asked: Sampled, messages: Sequence[object]) -> dict[str, object]:
    chosen = asked.model_dump(include={"model", "temperature", "max_tokens", "stream"}, exclude_none=True)
    return with_defaults({**chosen, "messages": messages})


# ── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model wants to be called. It is the client that calls, and that sends the result in another request."""

    id: str | None
    name: str
    arguments: JsonValue  # an object; or the text that the model wrote, where that is none


@dataclass(frozen=True, slots=True)
class WrapperAnswer:
    """OpenAI's answer, and its text on top."""

    text: str
    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, JsonValue]]
    usage: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class WrapperToolsAnswer(WrapperAnswer):
    """The same with the calls; without any, the text is the model's answer."""

    tool_calls: list[ToolCall] | None = None


def with_text(document: Object) -> Object:
    """An answer of OpenAI's, or a chunk of one, with its text on top. Raises BackendFailed for what is none."""
    choices = document.get("choices")
    if not isinstance(choices, list):
        raise BackendFailed("The model's answer has no choices.")
    first = choices[0] if choices and isinstance(choices[0], dict) else {}
    texts = (first.get("text"), _message(first).get("content"), _message(first, "delta").get("content"))
    return {"text": next((text for text in texts if isinstance(text, str)), ""), **document}


def with_calls(document: Object) -> Object:
    """An answer of OpenAI's with its text and its calls on top. Raises BackendFailed for what is none."""
    told = with_text(document)
    choice = next(iter(document["choices"]), None)
    calls = _message(choice).get("tool_calls")
    found = [_call(one) for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
    return {"text": told.pop("text"), "tool_calls": found, **told}


def _message(choice: object, key: str = "message") -> Object:
    message = choice.get(key) if isinstance(choice, dict) else None
    return message if isinstance(message, dict) else {}


def _call(told: Object) -> Object:
    function = told.get("function")
    called = function if isinstance(function, dict) else {}
    written = called.get("arguments")
    try:
        arguments = json.loads(written) if isinstance(written, str) else written
    except ValueError:
        arguments = written
    return {
        "id": told.get("id"),
        "name": called.get("name"),
        "arguments": arguments if isinstance(arguments, dict) else written,
    }


# ── models ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class WrapperModel:
    """A model, loaded or not; null is what is not known."""

    model_key: str
    type: Kind
    display_name: str
    publisher: str | None
    architecture: str | None
    quantization: str | None
    size_bytes: int | None
    max_context_length: int | None
    format: str | None
    vision: bool
    trained_for_tool_use: bool
    loaded: bool


@dataclass(frozen=True, slots=True)
class WrapperModels:
    models: list[WrapperModel]


@dataclass(frozen=True, slots=True)
class WrapperInstance:
    """A model in memory: `model_key` is what it is, `identifier` which of its instances."""

    identifier: str
    model_key: str
    type: Kind
    display_name: str
    publisher: str | None
    architecture: str | None
    quantization: str | None
    size_bytes: int | None
    max_context_length: int | None
    context_length: int | None  # tokens that one request can have
    vision: bool
    trained_for_tool_use: bool
    config: dict[str, JsonValue]  # how it runs, as far as known


@dataclass(frozen=True, slots=True)
class WrapperInstances:
    models: list[WrapperInstance]


@dataclass(frozen=True, slots=True)
class WrapperLoaded:
    """The model is in memory."""

    status: Literal["loaded"]
    model_key: str
    identifier: str
    load_time_seconds: float  # 0 if it was there before
    ttl: float | None  # that this request has set; null if it stays, or keeps the time that it had


@dataclass(frozen=True, slots=True)
class WrapperUnloaded:
    status: Literal["unloaded"]
    model_key: str
    identifier: str


@dataclass(frozen=True, slots=True)
class WrapperHealth:
    """Whether the models can be asked for; `message` says why not."""

    status: Literal["healthy", "unhealthy"]
    backend: Literal["llamarunner", "lmstudio"]  # this server, or the LM Studio that it stands in front of
    message: str
    models_available: int
    models_loaded: int


class NotLoaded(ModelNotFound):
    """The model is none, or is not in memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.message = f"The model '{name[:100]}' is not loaded."


@dataclass(frozen=True, slots=True)
class Listed:
    """A model, and the ids and settings of its instances."""

    model: WrapperModel
    instances: tuple[tuple[str, Object], ...] = ()

    def loaded(self) -> list[WrapperInstance]:
        model = self.model
        return [
            WrapperInstance(
                identifier=identifier,
                model_key=model.model_key,
                type=model.type,
                display_name=model.display_name,
                publisher=model.publisher,
                architecture=model.architecture,
                quantization=model.quantization,
                size_bytes=model.size_bytes,
                max_context_length=model.max_context_length,
                context_length=_number(config, "context_length"),
                vision=model.vision,
                trained_for_tool_use=model.trained_for_tool_use,
                config=config,
            )
            for identifier, config in self.instances
        ]


def read_v1(document: object) -> list[Listed] | None:
    """Read what `GET /api/v1/models` answers; None for what is no list of models."""
    items = document.get("models") if isinstance(document, dict) else None
    return [_from_v1(item) for item in items if _named(item, "key")] if isinstance(items, list) else None


def read_v0(document: object) -> list[Listed] | None:
    """Read what `GET /api/v0/models` answers, an older list; None for what is none."""
    items = document.get("data") if isinstance(document, dict) else None
    return [_from_v0(item) for item in items if _named(item, "id")] if isinstance(items, list) else None


def _from_v1(item: Object) -> Listed:
    found, capable = item.get("loaded_instances"), _object(item, "capabilities")
    instances = [one for one in found if _named(one, "id")] if isinstance(found, list) else []
    model = WrapperModel(
        model_key=item["key"],
        type="embedding" if item.get("type") == "embedding" else "llm",
        display_name=_text(item, "display_name") or item["key"],
        publisher=_text(item, "publisher"),
        architecture=_text(item, "architecture"),
        quantization=_text(_object(item, "quantization"), "name"),
        size_bytes=_number(item, "size_bytes"),
        max_context_length=_number(item, "max_context_length"),
        format=_text(item, "format"),
        vision=capable.get("vision") is True,
        trained_for_tool_use=capable.get("trained_for_tool_use") is True,
        loaded=bool(instances),
    )
    return Listed(model, tuple((one["id"], _object(one, "config")) for one in instances))


def _from_v0(item: Object) -> Listed:
    capable, loaded = item.get("capabilities"), item.get("state") == "loaded"
    model = WrapperModel(
        model_key=item["id"],
        type="embedding" if item.get("type") == "embeddings" else "llm",
        display_name=item["id"],
        publisher=_text(item, "publisher"),
        architecture=_text(item, "arch"),
        quantization=_text(item, "quantization"),
        size_bytes=None,
        max_context_length=_number(item, "max_context_length"),
        format=_text(item, "compatibility_type"),
        vision=item.get("type") == "vlm",
        trained_for_tool_use=isinstance(capable, list) and "tool_use" in capable,
        loaded=loaded,
    )
    context = _number(item, "loaded_context_length")
    config = {} if context is None else {"context_length": context}
    return Listed(model, ((item["id"], config),) if loaded else ())


def of_kind(models: Iterable[Listed], kind: Kind | None) -> list[Listed]:
    return [one for one in models if kind is None or one.model.type == kind]


def named(models: Iterable[Listed], name: str) -> Listed | None:
    """Find a model by the id of an instance, which it then has alone, or by its key in any letter case."""
    listed = list(models)
    for one in listed:
        for instance in one.instances:
            if instance[0] == name:
                return replace(one, instances=(instance,))
    return next((one for one in listed if one.model.model_key.casefold() == name.casefold()), None)


def chosen(models: Iterable[Listed], *, vision: bool = False) -> str:
    """The model that is meant where none is named: the only one loaded, else the only one present, of those that can
    do it; else the only one that sees nothing. Raises NoModelNamed.
    """
    able = [one for one in of_kind(models, "llm") if one.model.vision or not vision]
    loaded = [one for one in able if one.instances]
    plain = [one for one in able if not one.model.vision]
    for candidates in (loaded, able, plain):
        if len(candidates) == 1:
            (one,) = candidates
            return one.instances[0][0] if one.instances else one.model.model_key
    raise NoModelNamed(len(loaded), [one.model.model_key for one in able])


def _named(item: object, key: str) -> bool:
    return isinstance(item, dict) and isinstance(item.get(key), str) and bool(item[key])


def _text(item: Object, key: str) -> str | None:
    value = item.get(key)
    return value if isinstance(value, str) else None


def _number(item: Object, key: str) -> int | None:
    value = item.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _object(item: Object, key: str) -> Object:
    value = item.get(key)
    return value if isinstance(value, dict) else {}
