"""The exception tree; each class carries the HTTP status, the code and the type that a client sees.

    LlamaRunnerError
    ├── InvalidRequest            400 invalid_request
    │   ├── RequestTimeout        408
    │   ├── PayloadTooLarge       413
    │   ├── UnsupportedMedia      415
    │   └── ModelNotLoaded        400 model_not_loaded
    ├── Unauthorized              401 invalid_api_key
    │   └── WrongKey              401
    ├── Forbidden                 403 forbidden
    ├── RouteNotFound             404 not_found
    ├── MethodNotAllowed          405 method_not_allowed
    ├── ModelNotFound             404 model_not_found
    │   └── SpeechModelNotFound   404  with the way to get it
    ├── ResponseNotFound          404 response_not_found
    ├── WebhookNotFound           404 webhook_not_found
    ├── RateLimited               429 rate_limit_exceeded   (Retry-After)
    ├── ServiceUnavailable        503 service_unavailable   (Retry-After)
    │   ├── NotReady              503  the model did not become ready; says how far it is, if it may be soon
    │   │   ├── ModelFailed       503  its process would not start, or keeps dying
    │   │   └── QueueFull         503
    │   └── ShuttingDown          503
    ├── ServerError               500 server_error
    │   ├── BackendFailed         502  the model's process died or spoke nonsense during the request
    │   └── BackendTimeout        504  the model's process fell silent
    └── ConfigError               not for clients: exit code 2

Codes and types are those of the LlamaRunner Pro API; `param` names the field at fault, as OpenAI does.
Messages are for the caller: no path of this machine, no traceback, and what to do next where there is something to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class LlamaRunnerError(Exception):
    """Base of everything we raise on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "server_error"
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after  # seconds; rendered as Retry-After, rounded up
        self.details: Mapping[str, object] = {}  # more that a client is told, beside code and message


class InvalidRequest(LlamaRunnerError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class RequestTimeout(InvalidRequest):
    status = 408


class PayloadTooLarge(InvalidRequest):
    status = 413


class UnsupportedMedia(InvalidRequest):
    status = 415


class ModelNotLoaded(InvalidRequest):
    code = "model_not_loaded"


class Unauthorized(LlamaRunnerError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class WrongKey(Unauthorized):
    """A key was given, and is none of the door's; `given` is what it was, and is told to nobody else."""

    def __init__(self, message: str, *, given: str = "") -> None:
        super().__init__(message)
        self.given = given


class Forbidden(LlamaRunnerError):
    status, code, type = 403, "forbidden", "permission_error"


class RouteNotFound(LlamaRunnerError):
    status, code, type = 404, "not_found", "invalid_request_error"


class MethodNotAllowed(LlamaRunnerError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class ModelNotFound(LlamaRunnerError):
    """No model of that name; `known` are some names that would have worked."""

    status, code, type = 404, "model_not_found", "invalid_request_error"

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        hint = f" Available: {', '.join(known[:10])}." if known else ""
        missing = "No model was named, and there is no single model to choose."
        super().__init__((f"The model '{name}' was not found." if name else missing) + hint, param="model")
        self.known = known


class WebhookNotFound(LlamaRunnerError):
    """No webhook of that id, or no delivery of that id in it."""

    status, code, type = 404, "webhook_not_found", "invalid_request_error"


class ResponseNotFound(LlamaRunnerError):
    """No stored response of that id, or it is another client's."""

    status, code, type = 404, "response_not_found", "invalid_request_error"

    def __init__(self, response_id: str) -> None:
        super().__init__(f"Response with id '{response_id[:100]}' not found.")


class SpeechModelNotFound(ModelNotFound):
    """No speech model of that name; `repository` is where Hugging Face has it, if it is one of the known ones."""

    def __init__(self, name: str, known: tuple[str, ...], repository: str | None) -> None:
        super().__init__(name, known)
        place = "put its folder, in CTranslate2's format, into a folder of catalog.folders"
        get = f"Get it with `hf download {repository}`, or {place}."
        if repository is None:
            get = (
                f"To add one, run for example `hf download Systran/faster-whisper-base`, or {place}; `whisper-1` means "
                "any that is here, and catalog.aliases gives other names."
            )
        self.message = f"{self.message} {get}"


class RateLimited(LlamaRunnerError):
    """A client asks more than its limits allow; `retry_after` is when it may ask again, `limit` which one it is."""

    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None, limit: str = "other"
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.limit = limit


class ServiceUnavailable(LlamaRunnerError):
    status, code, type = 503, "service_unavailable", "service_unavailable_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = 1.0) -> None:
        super().__init__(message, param=param, retry_after=retry_after)


class NotReady(ServiceUnavailable):
    """The model did not become ready for this request; `details` may have under `loading` how far it is."""


class ModelFailed(NotReady):
    """The model's process did not become ready, or the loop breaker holds it back."""


class QueueFull(NotReady):
    """Too many requests wait for models."""


class ShuttingDown(ServiceUnavailable):
    """The server drains; try another one, or again when it is back."""


class ServerError(LlamaRunnerError):
    """Our fault, or the backend's."""


class BackendFailed(ServerError):
    status = 502


class BackendTimeout(ServerError):
    status = 504


class ConfigError(LlamaRunnerError):
    """The settings are wrong; `problems` has one line for each mistake."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
