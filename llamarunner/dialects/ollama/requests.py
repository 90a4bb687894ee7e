"""Bodies as Ollama's decoder reads them: keys in any case, null for what is not given, unknown keys left alone.

What has the wrong type is refused in the words of Go's decoder, which say the field and the type that it wants.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, JsonValue, ValidationError, model_validator

from llamarunner.dialects import strict_json
from llamarunner.dialects.ollama import go_json
from llamarunner.dialects.ollama.durations import keep_alive
from llamarunner.errors import InvalidRequest

Levels = Literal["high", "medium", "low", "max"]
LEVELS = '"high", "medium", "low", "max", true, or false'

# What Go calls the types of fields, by the path to them; anything not listed is a string.
_GO_TYPES = {
    "messages": "[]api.Message",
    "messages.images": "[]api.ImageData",
    "messages.tool_calls": "[]api.ToolCall",
    "messages.tool_calls.function": "api.ToolCallFunction",
    "messages.tool_calls.function.arguments": "api.ToolCallFunctionArguments",
    "messages.tool_calls.function.index": "int",
    "tools": "api.Tools",
    "options": "map[string]interface {}",
    "parameters": "map[string]interface {}",
    "files": "map[string]string",
    "adapters": "map[string]string",
    "images": "[]api.ImageData",
    "context": "[]int",
    "dimensions": "int",
    "top_logprobs": "int",
} | dict.fromkeys(("stream", "raw", "truncate", "logprobs", "verbose", "insecure"), "bool")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_JSON_TYPES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


def _base64(text: str) -> str:
    try:
        b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"illegal base64 data at input byte {_first_wrong(text)}") from None
    return text


def _first_wrong(text: str) -> int:
    wrong = _NOT_BASE64.search(text)
    return wrong.start() if wrong else 0


def _think(value: object) -> object:
    if isinstance(value, str) and value not in ("high", "medium", "low", "max"):
        raise ValueError(f'invalid think value: "{value[:100]}" (must be {LEVELS})')
    if value is not None and not isinstance(value, bool | str):
        raise ValueError(
            f"think must be a boolean or string ({LEVELS.replace(', true, or false', '')}, true, or false)"
        )
    return value


def _keep_alive(value: object) -> float | None:
    try:
        return keep_alive(value)
    except InvalidRequest as error:
        raise ValueError(error.message) from None


def _top_logprobs(value: int) -> int:
    if not 0 <= value <= 20:
        raise ValueError("top_logprobs must be between 0 and 20")
    return value


T = TypeVar("T")

ListOf = Annotated[list[T], FailFast()]  # all that is wrong with a long list would take seconds to tell
Image = Annotated[str, AfterValidator(_base64)]
Think = Annotated[Any, AfterValidator(_think)]
KeepAlive = Annotated[Any, AfterValidator(_keep_alive)]  # seconds, infinity for ever, None if it was not given


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _as_go_reads_it(cls, value: Any) -> Any:
        """Match keys whatever their case, and take null for what is not given."""
        if not isinstance(value, dict):
            return value
        return {key.lower(): inner for key, inner in value.items() if inner is not None}


class Function(Body):
    name: str = ""
    arguments: dict[str, JsonValue] = {}
    index: int = 0


class ToolCall(Body):
    id: str = ""
    function: Function = Function()


class Message(Body):
    role: str = ""
    content: str = ""
    thinking: str = ""
    images: ListOf[Image] = []
    tool_calls: ListOf[ToolCall] = []
    tool_name: str = ""
    tool_call_id: str = ""


class Inference(Body):
    """What chat and generate have in common."""

    model: str = ""
    stream: bool = True
    format: JsonValue = None
    keep_alive: KeepAlive = None
    options: dict[str, JsonValue] = {}
    think: Think = None
    truncate: bool = True
    logprobs: bool = False
    top_logprobs: Annotated[int, AfterValidator(_top_logprobs)] = 0


class ChatRequest(Inference):
    messages: ListOf[Message] = []
    tools: ListOf[dict[str, JsonValue]] = []


class GenerateRequest(Inference):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: ListOf[int] = []
    raw: bool = False
    images: ListOf[Image] = []


class EmbedRequest(Body):
    model: str = ""
    input: JsonValue = None
    truncate: bool = True
    dimensions: int = 0
    options: dict[str, JsonValue] = {}
    keep_alive: KeepAlive = None


class EmbeddingRequest(Body):
    """Of the older /api/embeddings."""

    model: str = ""
    prompt: str = ""
    options: dict[str, JsonValue] = {}
    keep_alive: KeepAlive = None


class ModelRequest(Body):
    """Names a model, in the new way or the old."""

    model: str = ""
    name: str = ""

    @property
    def named(self) -> str:
        return self.model or self.name


class ShowRequest(ModelRequest):
    verbose: bool = False
    system: str = ""
    options: dict[str, JsonValue] = {}


class CopyRequest(Body):
    source: str = ""
    destination: str = ""


class PullRequest(ModelRequest):
    insecure: bool = False
    stream: bool = True


class CreateRequest(ModelRequest):
    from_: str = Field("", alias="from")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    template: str = ""
    license: JsonValue = None
    system: str = ""
    parameters: dict[str, JsonValue] = {}
    messages: ListOf[Message] = []
    quantize: str = ""
    quantization: str = ""
    stream: bool = True


R = TypeVar("R", bound=Body)


def read(kind: type[R], body: bytes) -> R:
    """Read a body. Raises InvalidRequest."""
    if not body.strip():
        raise InvalidRequest("missing request body")
    try:
        document = strict_json.loads(body)
    except strict_json.NotJson as error:
        raise InvalidRequest(go_json.told(error.fault)) from None
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _refusal(kind, error.errors(include_url=False)[0]) from None


def _refusal(kind: type[Body], fault: Any) -> InvalidRequest:
    path = ".".join(part for part in fault["loc"] if isinstance(part, str))
    field = path.partition(".")[0] or None
    if fault["type"] == "value_error":
        return InvalidRequest(str(fault["ctx"]["error"]), param=field)
    given = _JSON_TYPES.get(type(fault["input"]), "null")
    if not path:
        return InvalidRequest(f"json: cannot unmarshal {given} into Go value of type api.{kind.__name__}")
    wanted = _GO_TYPES.get(path, "string")
    return InvalidRequest(
        f"json: cannot unmarshal {given} into Go struct field {kind.__name__}.{path} of type {wanted}", param=field
    )
