"""Errors as Ollama says them: one text, under `error`."""

from __future__ import annotations

from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.wire import Dialect
from llamarunner.errors import (
    InvalidRequest,
    LlamaRunnerError,
    ModelNotFound,
    QueueFull,
)

BUSY = "server busy, please try again.  maximum pending requests exceeded"  # two spaces: clients compare it


class ModelMissing(ModelNotFound):
    """No such model, in the words of the route that was asked."""

    def __init__(self, text: str) -> None:
        super().__init__("")
        self.message = text


class WrongOption(InvalidRequest):
    """An option of the wrong type, or a format that is none; Ollama calls it a failure of its own."""

    status = 500


def text_of(error: LlamaRunnerError) -> str:
    """The words for an error: Ollama's where clients know them, else ours."""
    return BUSY if isinstance(error, QueueFull) else error.message


def error_body(error: LlamaRunnerError, request_id: str) -> bytes:
    return dumps({"error": text_of(error)})


def error_line(error: LlamaRunnerError, request_id: str) -> bytes:
    return error_body(error, request_id) + b"\n"


OLLAMA = Dialect("ollama", error_body, error_line, pulse=b"")
