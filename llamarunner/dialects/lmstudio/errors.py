"""Errors as LM Studio says them. It has three ways, and each path has one of them:

    NATIVE  /api/v1   {"error": {"message", "type", "param"?, "code"?}}, with types of its own
    V0      /api/v0   OpenAI's object, or for some {"error": "text"}
    ON_V1   /v1       always OpenAI's object, which its clients read; the words are LM Studio's where they are known

What LM Studio calls the fault of the request although it is the server's keeps its status here: a client may ask again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llamarunner.dialects import openai
from llamarunner.dialects.llama_cpp import ContextLengthExceeded
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import Dialect, sse
from llamarunner.errors import (
    BackendFailed,
    Forbidden,
    InvalidRequest,
    LlamaRunnerError,
    MethodNotAllowed,
    ModelFailed,
    ModelNotFound,
    RouteNotFound,
    ServerError,
    Unauthorized,
    WrongKey,
)

MEDIA = "application/json; charset=utf-8"
TOKEN_START = "sk-lm-"
TOKEN = re.compile(TOKEN_START + r"[A-Za-z0-9]{8}:[A-Za-z0-9]{20}")
NO_TOKEN = (
    "An LM Studio API token is required to make requests to this server, but none was provided using the Authorization "
    "header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN'). Learn more at: "
    "https://lmstudio.ai/docs/developer/core/authentication."
)
MALFORMED_TOKEN = "Malformed LM Studio API token provided: {start}**************. Ensure you are using a valid token."
UNKNOWN_TOKEN = "Invalid LM Studio API token provided. Ensure you are using a valid token."
NO_MODELS = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
SEVERAL_MODELS = "Multiple models are loaded. Please specify a model by providing a 'model' field."
_OF_A_MODEL = re.compile(r"The model '([^']+)' ")
MOST_KNOWN = 3  # names that an error gives as examples
MOST_LISTED = 10  # names of which one may be given
SHOWN = 100  # characters of what a client said


class UnrecognizedKeys(InvalidRequest):
    """A strict body has keys that are not known."""

    code = "unrecognized_keys"

    def __init__(self, keys: Sequence[str]) -> None:
        listed = ", ".join(f"'{key[:SHOWN]}'" for key in keys)
        super().__init__(f"Unrecognized key(s) in object: {listed}")


class MissingParameter(InvalidRequest):
    """A strict body lacks a field."""

    code = "missing_required_parameter"

    def __init__(self, name: str) -> None:
        super().__init__(f'"{name}" is required', param=name)


class InvalidValue(InvalidRequest):
    """A field has a value that it cannot have."""

    code = "invalid_value"


class InvalidType(InvalidRequest):
    """A field has a value of the wrong type."""

    code = "invalid_type"


class WrongFormat(InvalidRequest):
    """The form that an answer shall have is none of the known ones."""

    def __init__(self) -> None:
        super().__init__("'response_format.type' must be 'json_schema' or 'text'", param="response_format")


class FieldRequired(InvalidRequest):
    """A body of the OpenAI family lacks a field."""

    def __init__(self, name: str) -> None:
        super().__init__(f"'{name}' field is required", param=name)


class UnknownModel(ModelNotFound):
    """No model or instance of that name; `known` are some names that would have worked. `said` is LM Studio's text."""

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        name = name[:SHOWN]
        super().__init__(name)
        examples = f" (e.g., {', '.join(known[:MOST_KNOWN])})" if known else ""
        advice = f"Please specify a valid downloaded model{examples}."
        self.said = f'Invalid model identifier "{name}". {advice}'
        self.message = f"The model '{name}' was not found. {advice}"  # as our own API documents it


class NoModelNamed(ModelNotFound):
    """No model was named, and it is not clear which one is meant: several are loaded, or none."""

    def __init__(self, loaded: int, known: Sequence[str] = ()) -> None:
        super().__init__("")
        self.said = SEVERAL_MODELS if loaded else NO_MODELS
        self.message = f"{self.said} Available: {', '.join(known[:MOST_LISTED])}." if known else self.said


class JobNotFound(LlamaRunnerError):
    """No download of that id."""

    status, code, type = 404, "job_not_found", "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f'Download job "{job_id[:SHOWN]}" not found.')


class DownloadImpossible(ServerError):
    """The place that has a model cannot be reached, or gives nothing that can be used."""

    status = 502


class PreviousResponseNotFound(InvalidRequest):
    """The response that a chat is to continue is not stored, or is another client's."""

    code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(f"Previous response with id '{response_id[:SHOWN]}' not found.", param="previous_response_id")


TYPES = frozenset(
    {
        "invalid_request",
        "unknown",
        "mcp_connection_error",
        "plugin_connection_error",
        "not_implemented",
        "model_not_found",
        "job_not_found",
        "internal_error",
    }
)
_UNTOLD = (InvalidRequest.code, ServerError.code, Forbidden.code)  # codes that say no more than type and status
_FLAT = (  # what V0 says as a text alone
    RouteNotFound,
    MethodNotAllowed,
    FieldRequired,
    WrongFormat,
    ContextLengthExceeded,
    BackendFailed,
)


def unexpected(method: str, path: str, *, known: bool = False) -> LlamaRunnerError:
    """What LM Studio says of a path that it has not, there with status 200; `known` is one for other methods."""
    kind = MethodNotAllowed if known else RouteNotFound
    return kind(f"Unexpected endpoint or method. ({method[:20]} {path[:SHOWN]})")


def text_of(error: LlamaRunnerError) -> str:
    """The words for an error: LM Studio's where clients know them, else ours."""
    match error:
        case UnknownModel() | NoModelNamed():
            return error.said
        case WrongKey() if error.given.startswith(TOKEN_START) and not TOKEN.fullmatch(error.given):
            return MALFORMED_TOKEN.format(start=error.given[:10])
        case WrongKey():
            return UNKNOWN_TOKEN
        case Unauthorized():
            return NO_TOKEN
        case ContextLengthExceeded():
            return _overflow(error)
        case ModelFailed():
            return _failed_to_load(error)
    return error.message


def type_of(error: LlamaRunnerError) -> str:
    """The type of an error in LM Studio's own API, one of `TYPES`; an error may have it already."""
    if error.type in TYPES:
        return error.type
    if isinstance(error, ModelNotFound):
        return "model_not_found"
    return "invalid_request" if error.status < 500 else "internal_error"


def error_object(error: LlamaRunnerError) -> dict[str, object]:
    """Describe an error as LM Studio's own API does: `param` and `code` only where there is something to say."""
    kind = type_of(error)
    code = None if error.code in _UNTOLD else error.code
    told = {"message": text_of(error), "type": kind, "param": _param_of(error), "code": code}
    return {key: value for key, value in told.items() if value is not None} | dict(error.details)


def v1_object(error: LlamaRunnerError) -> dict[str, object]:
    """Describe an error as OpenAI does; the words are LM Studio's, unless our own API documents others."""
    told = openai.error_object(error) | {"param": _param_of(error)}
    if isinstance(error, Unauthorized):
        told["type"] = "invalid_request"
    elif error.type == "invalid_request":  # of what its own API knows as well
        told |= {"type": "invalid_request_error", "code": None if error.code in _UNTOLD else error.code}
    if isinstance(error, UnknownModel | NoModelNamed | ModelFailed):
        return told
    return told | {"message": text_of(error)}


def _native_body(error: LlamaRunnerError, request_id: str) -> bytes:
    return dumps({"error": error_object(error)})


def _native_event(error: LlamaRunnerError, request_id: str) -> bytes:
    return sse(dumps({"type": "error", "error": error_object(error)}), event="error")


def _v0_body(error: LlamaRunnerError, request_id: str) -> bytes:
    if isinstance(error, _FLAT):
        return dumps({"error": text_of(error)})
    return dumps({"error": {**v1_object(error), "message": text_of(error)}})


def _v0_status(error: LlamaRunnerError) -> int:
    return 400 if isinstance(error, ModelNotFound) else error.status


def _v1_body(error: LlamaRunnerError, request_id: str) -> bytes:
    return dumps({"error": v1_object(error)})


def _v1_event(error: LlamaRunnerError, request_id: str) -> bytes:
    """The text stands twice, as LM Studio has it."""
    told = v1_object(error)
    return sse(dumps({"error": told, "message": told["message"]}))


def _failed_to_load(error: ModelFailed) -> str:
    found = _OF_A_MODEL.match(error.message)
    named = f' "{found[1]}"' if found else ""
    return f"Failed to load model{named}. Error: {error.message}"


def _param_of(error: LlamaRunnerError) -> str | None:
    return "model" if isinstance(error, ModelFailed) else error.param


def _overflow(error: ContextLengthExceeded) -> str:
    prompt, context = (error.details.get(name) for name in ("n_prompt_tokens", "n_ctx"))
    if prompt is None or context is None:
        return error.message
    return (
        "The number of tokens to keep from the initial prompt is greater than the context length "
        f"(n_keep: {prompt}>= n_ctx: {context}). Try to load the model with a larger context length, or provide a "
        "shorter input."
    )


NATIVE = Dialect("lmstudio", _native_body, _native_event, media=MEDIA)
V0 = Dialect("lmstudio-v0", _v0_body, _v1_event, status_of=_v0_status, media=MEDIA)
ON_V1 = Dialect("openai", _v1_body, _v1_event)
