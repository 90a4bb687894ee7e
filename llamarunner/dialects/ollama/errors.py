"""Errors as Ollama says them: one text, under `error`; before a stream with a status, inside one as the last line."""

from __future__ import annotations

from llamarunner.dialects.llama_cpp import ContextLengthExceeded
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import Dialect
from llamarunner.errors import (
    BackendFailed,
    BackendTimeout,
    Forbidden,
    InvalidRequest,
    LlamaRunnerError,
    ModelFailed,
    ModelNotFound,
    QueueFull,
)

BUSY = "server busy, please try again.  maximum pending requests exceeded"  # two spaces: clients compare it
TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the "
    "context length in settings, or use a model with a longer context length"
)
STOPPED = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error: "
BROKE_OFF = "an error was encountered while running the model: "


class ModelMissing(ModelNotFound):
    """No such model, in the words of the route that was asked."""

    def __init__(self, text: str) -> None:
        super().__init__("")
        self.message = text


class WrongOption(InvalidRequest):
    """An option of the wrong type, or a format that is none; Ollama calls it a failure of its own."""

    status = 500


class InputTooLong(InvalidRequest):
    """A text to embed is longer than the context, and was not to be cut."""

    def __init__(self) -> None:
        super().__init__("the input length exceeds the context length")


class CloudDisabled(Forbidden):
    """What Ollama asks of its makers' servers is not asked here; `what` ends in "is" or "are"."""

    def __init__(self, what: str) -> None:
        super().__init__(f"ollama cloud is disabled: {what} unavailable")


def text_of(error: LlamaRunnerError) -> str:
    """The words for an error: Ollama's where clients know them, else ours."""
    match error:
        case QueueFull():
            return BUSY
        case ContextLengthExceeded():
            return TOO_LONG
        case BackendFailed():
            return STOPPED + error.message
    return error.message


def status_of(error: LlamaRunnerError) -> int:
    """Ollama has one status for everything that goes wrong with a model's process."""
    return 500 if isinstance(error, BackendFailed | BackendTimeout | ModelFailed) else error.status


def error_body(error: LlamaRunnerError, request_id: str) -> bytes:
    return dumps({"error": text_of(error)})


def error_line(error: LlamaRunnerError, request_id: str) -> bytes:
    failed = isinstance(error, BackendFailed | BackendTimeout)
    return dumps({"error": BROKE_OFF + error.message if failed else text_of(error)}) + b"\n"


OLLAMA = Dialect(
    "ollama", error_body, error_line, pulse=b"", status_of=status_of, media="application/json; charset=utf-8"
)
