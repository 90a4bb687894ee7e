"""The description of our API for programs: OpenAPI 3.1, made from the code that answers.

What an answer looks like is told by its type, what a path does by its handler's docstring. `OPERATIONS` has one entry
for each path that is ours; one more route of ours is one more entry there. OpenAI's and Anthropic's paths, whose bodies
pass through, are listed with what we read of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Field, JsonValue, TypeAdapter

from llamarunner import __version__
from llamarunner.dialects import openai, strict_json
from llamarunner.fleet.output import MOST_LINES
from llamarunner.fleet.progress import Progress
from llamarunner.server import (
    anthropic_api,
    audio_api,
    lmstudio_operations,
    logs_api,
    manage_api,
    metrics_api,
    models_api,
    ollama_operations,
    openai_api,
    query,
    responses_api,
    webhooks_api,
    wrapper_operations,
)
from llamarunner.server.audio_form import AudioRequest, TranscriptionRequest
from llamarunner.server.operation import FROM_MODEL, JSON, NOT_FOUND, Asked, Choice, Count, Flag, Operation, plain
from llamarunner.server.services import VIEW

TEXT = "text/plain"
FORM = "multipart/form-data"
Schema = dict[str, Any]
SCHEMAS = "#/components/schemas/{model}"

# Every answer may be one of these, every POST one of the second kind too.
ALWAYS = frozenset({400, 401, 403, 429, 500, 503})
WITH_BODY = frozenset({408, 413, 415})
MEANINGS = {
    400: "The request is malformed, or a value is wrong; `param` names it.",
    401: "An API key is needed, or the one given is not valid.",
    403: "This door, key, Host or Origin is not allowed to do this.",
    404: "There is no such thing here; `code` says what was not found.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is compressed, or of a type that is not taken here.",
    429: "The client asks more than its limits allow; Retry-After says when it may ask again.",
    500: "The server met an unexpected error; its log has it under the X-Request-ID.",
    502: "The model's process died, or spoke nonsense.",
    503: "Not now: the server stops, is full, or lacks something; Retry-After says when to ask again.",
    504: "The model's process fell silent.",
}
HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Request-ID": ("The id of the request, which the log has too.", {"type": "string"}),
    "X-RateLimit-Limit": ("Requests that a client may send in a minute.", {"type": "integer"}),
    "X-RateLimit-Remaining": ("Requests that remain at present.", {"type": "integer"}),
    "X-RateLimit-Reset": ("Seconds until more remain.", {"type": "integer"}),
    "RateLimit-Policy": ("The limit, as draft-ietf-httpapi-ratelimit-headers has it.", {"type": "string"}),
    "RateLimit": ("What remains of it, as the same draft has it.", {"type": "string"}),
}
RETRY_AFTER = ("Seconds after which to ask again.", {"type": "integer"})
SECURITY: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
NDJSON = "application/x-ndjson"
ABOUT = """\
Models by REST, and the house about itself. Both doors answer alike; paths with the tag `ollama` or `lmstudio` are of
one door alone.

`/v1/ws` is a websocket and not described here; its messages are in docs/websocket.md of the sources.

OpenAI's and Anthropic's paths (tag `inference`) take and give what those APIs document. To a request with an
`anthropic-version` header the paths of models answer in Anthropic's shapes, errors too.
"""


@dataclass(frozen=True, slots=True)
class Error:
    """What went wrong, for programs and for people."""

    code: str
    message: str
    type: str
    param: str | None  # the field at fault
    loading: Progress | None = None  # how far the model is that was asked for, with some answers 503


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    error: Error


class TranslationForm(AudioRequest):
    """A recording, and how it is to be written down in English."""

    file: bytes = Field(description="The recording: wav, mp3, m4a, ogg, flac, webm and the like.")


class TranscriptionForm(TranscriptionRequest):
    """A recording, and how it is to be written down."""

    file: bytes = Field(description="The recording: wav, mp3, m4a, ogg, flac, webm and the like.")


@dataclass(frozen=True, slots=True)
class SpokenSegment:
    start: float  # seconds
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class SpokenText:
    """What is said in a recording, as `json` and `verbose_json` tell it."""

    text: str
    language: str | None
    duration: float  # seconds
    segments: list[SpokenSegment] | None = None


async def document(request: web.Request) -> web.Response:
    """Describe this API as OpenAPI 3.1 does."""
    view = request.app[VIEW]
    return web.Response(body=_rendered(view.name, bool(view.door.api_keys)), content_type=JSON)


def operations(door: str) -> tuple[Operation, ...]:
    """What a door has, by its name."""
    own = {
        "ollama": ollama_operations.OPERATIONS,
        "lmstudio": lmstudio_operations.OPERATIONS + wrapper_operations.OPERATIONS,
        "wrapper": wrapper_operations.OPERATIONS,
    }
    return OPERATIONS + own[door]


_WAIT = Flag("wait", "Answer when the model is loaded, or has failed.")
_FORCE = Flag("force", "Do not wait for running answers.")
_TAIL = Count("tail", "The last so many lines.", logs_api.DEFAULT_TAIL, MOST_LINES)

_RESPONSES = (
    Operation(
        *("POST", "/v1/responses", responses_api.create, dict[str, JsonValue]),
        body=responses_api.ResponseRequest,
        body_required=True,
        errors=FROM_MODEL,
        tag="inference",
    ),
    *(
        Operation(method, plain(path), responses_api.ROUTES[method, path], answer, errors=NOT_FOUND, tag="inference")
        for method, path, answer in (
            ("GET", responses_api.ONE, dict[str, JsonValue]),
            ("DELETE", responses_api.ONE, responses_api.ResponseDeleted),
            ("GET", f"{responses_api.ONE}/input_items", responses_api.InputItems),
        )
    ),
)

_WEBHOOKS = tuple(
    Operation(
        *(method, plain(path), webhooks_api.ROUTES[method, path], answer),
        body=body,
        body_required=path.endswith("register"),
        errors=NOT_FOUND if "{" in path else frozenset(),
    )
    for method, path, answer, body in (
        ("POST", "/v1/webhooks/register", webhooks_api.WebhookRegistered, webhooks_api.RegisterBody),
        ("GET", "/v1/webhooks", webhooks_api.WebhookList, None),
        ("GET", webhooks_api.ONE, webhooks_api.WebhookDetail, None),
        ("DELETE", webhooks_api.ONE, webhooks_api.WebhookDeleted, None),
        ("POST", "/v1/webhooks/{id}/test", webhooks_api.WebhookTested, None),
        ("POST", "/v1/webhooks/{id}/redeliver", webhooks_api.WebhookRedelivered, webhooks_api.RedeliverBody),
        ("POST", "/v1/webhooks/{id}/enable", webhooks_api.Webhook, None),
    )
)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/health", manage_api.health, manage_api.Health, also={503: manage_api.Health}),
    Operation("GET", "/openapi.json", document, dict[str, JsonValue]),
    Operation("GET", "/v1/system/status", manage_api.system_status, manage_api.SystemStatus),
    Operation("GET", "/v1/server/info", manage_api.server_info, manage_api.ServerInfo),
    Operation("GET", "/v1/models", openai_api.list_models, openai.ModelList),
    Operation("GET", "/v1/models/{id}", openai_api.retrieve_model, openai.Model, errors=NOT_FOUND),
    Operation("GET", "/v1/models/{id}/status", models_api.status, models_api.ModelStatus, errors=NOT_FOUND),
    Operation("GET", "/v1/models/{id}/info", models_api.info, models_api.ModelInfo, errors=NOT_FOUND),
    Operation(
        *("POST", "/v1/models/{id}/start", models_api.start, models_api.ModelStarted),
        body=models_api.Overrides,
        parameters=(_WAIT,),
        errors=NOT_FOUND,
    ),
    Operation(
        *("POST", "/v1/models/{id}/stop", models_api.stop, models_api.ModelStopped),
        parameters=(_FORCE,),
        errors=NOT_FOUND,
    ),
    Operation(
        *("GET", "/v1/models/{id}/logs", logs_api.logs, str),
        media=TEXT,
        parameters=(_TAIL,),  # an answer that follows has no end, and no description
        errors=NOT_FOUND,
    ),
    Operation("GET", "/metrics", metrics_api.metrics, str, media=TEXT),
    *_WEBHOOKS,
    *_RESPONSES,
    Operation(
        *("POST", "/v1/audio/transcriptions", audio_api.transcribe, SpokenText),
        body=TranscriptionForm,
        body_media=FORM,
        body_required=True,
        errors=FROM_MODEL,
        tag="inference",
    ),
    Operation(
        *("POST", "/v1/audio/translations", audio_api.translate, SpokenText),
        body=TranslationForm,
        body_media=FORM,
        body_required=True,
        errors=FROM_MODEL,
        tag="inference",
    ),
)


@lru_cache(maxsize=6)
def _rendered(door: str, locked: bool) -> bytes:
    return strict_json.dumps(describe(operations(door) + _inference(), locked))


def describe(operations: Iterable[Operation], locked: bool) -> Schema:
    """Make the document; `locked` tells whether an API key is needed."""
    wanted = tuple(operations)
    schemas = _Schemas([one for operation in wanted for one in _types(operation)])
    paths: Schema = {}
    for operation in wanted:
        paths.setdefault(plain(operation.path), {})[operation.method.lower()] = _operation(operation, schemas)
    keys: list[Schema] = [{name: []} for name in SECURITY]
    return {
        "openapi": "3.1.0",
        "info": {"title": "LlamaRunner Pro", "version": __version__, "description": ABOUT},
        "paths": paths,
        "security": keys if locked else [*keys, {}],
        "components": {
            "schemas": schemas.shared,
            "responses": {_name(status): _error(status, schemas) for status in MEANINGS},
            "headers": {name: _header(*told) for name, told in {**HEADERS, "Retry-After": RETRY_AFTER}.items()},
            "securitySchemes": SECURITY,
        },
    }


class _Schemas:
    """The JSON Schemas of all types that are spoken of."""

    def __init__(self, types: Iterable[Any]) -> None:
        self._adapters = {repr(one): TypeAdapter(one) for one in (*types, ErrorAnswer)}
        inputs = [(name, "validation", adapter) for name, adapter in self._adapters.items()]
        self._by_type, rest = TypeAdapter.json_schemas(inputs, ref_template=SCHEMAS)  # type: ignore[arg-type]
        self.shared: Schema = rest["$defs"]

    def __getitem__(self, one: Any) -> Schema:
        return self._by_type[repr(one), "validation"]


def _types(operation: Operation) -> list[Any]:
    told = (operation.answer, operation.body, operation.failure, *operation.also.values())
    return [one for one in told if one is not None]


def _operation(operation: Operation, schemas: _Schemas) -> Schema:
    summary, _, more = _words(operation.handler).partition("\n\n")
    usual = {} if operation.status is None else {operation.status: operation.answer}
    posted = WITH_BODY if operation.method not in ("GET", "DELETE") else frozenset()
    told: Schema = {
        "operationId": _identifier(operation),
        "summary": summary,
        "tags": [operation.tag],
        "parameters": [
            *map(_path_parameter, _placeholders(operation.path)),
            *map(_query_parameter, operation.parameters),
        ],
        "responses": {
            str(status): _answered(HTTPStatus(status).phrase, operation, kind, schemas)
            for status, kind in {**usual, **operation.also}.items()
        },
    }
    if operation.failure is not None:
        told["responses"]["default"] = _answer("What went wrong.", JSON, schemas[operation.failure])
    for status in sorted(ALWAYS | posted | operation.errors) if operation.failure is None else ():
        told["responses"].setdefault(str(status), {"$ref": f"#/components/responses/{_name(status)}"})
    if more:
        told["description"] = more
    if operation.body is not None:
        content = {operation.body_media: {"schema": schemas[operation.body]}}
        told["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.path == "/health":
        told["security"] = []
    return told


def _answered(meaning: str, operation: Operation, kind: Any, schemas: _Schemas) -> Schema:
    if kind is None:
        told = _answer(meaning, JSON, {})
        return {name: part for name, part in told.items() if name != "content"}
    told = _answer(meaning, operation.media, schemas[kind])
    if operation.streams:
        told["content"][NDJSON] = {"schema": schemas[kind]}
    return told


def _answer(meaning: str, media: str, schema: Schema, *more: str) -> Schema:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in (*HEADERS, *more)}
    return {"description": meaning, "headers": headers, "content": {media: {"schema": schema}}}


def _error(status: int, schemas: _Schemas) -> Schema:
    more = ("Retry-After",) if status in (429, 503) else ()
    return _answer(MEANINGS[status], JSON, schemas[ErrorAnswer], *more)


def _header(meaning: str, schema: Schema) -> Schema:
    return {"description": meaning, "schema": schema}


def _query_parameter(one: Flag | Count | Choice) -> Schema:
    schema: Schema = {"type": "string", "enum": list(query.SWITCH), "default": "false"}
    if isinstance(one, Choice):
        schema = {"type": "string", "enum": list(one.words)}
    elif isinstance(one, Count):
        schema = {"type": "integer", "minimum": 0, "maximum": one.most, "default": one.default}
    return {"name": one.name, "in": "query", "description": one.meaning, "schema": schema}


def _path_parameter(name: str) -> Schema:
    told = {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return told


def _inference() -> tuple[Operation, ...]:
    """The paths whose requests pass to a model."""
    return tuple(
        Operation(
            *("POST", path, f"Ask a model, as {ask.dialect.name} does.", dict[str, JsonValue]),
            body=Asked,
            body_required=True,
            errors=FROM_MODEL,
            tag="inference",
        )
        for path, ask in (openai_api.PATHS | anthropic_api.PATHS).items()
    )


def _words(handler: Handler | str) -> str:
    return handler if isinstance(handler, str) else inspect.getdoc(handler) or ""


def _placeholders(path: str) -> list[str]:
    return re.findall(r"{(\w+)", path)


def _identifier(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path)
    return "_".join([operation.method.lower(), *words])


def _name(status: int) -> str:
    return re.sub(r"\W", "", HTTPStatus(status).phrase)
