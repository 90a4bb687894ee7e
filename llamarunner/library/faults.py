"""What goes wrong with stored models. The texts are Ollama's where it has one, for clients look at them."""

from __future__ import annotations

import errno

from llamarunner.errors import LlamaRunnerError, ServerError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotInstalled(LlamaRunnerError):
    """No model of that name."""

    status, code, type = 404, "model_not_found", "invalid_request_error"


class PullFailed(ServerError):
    """A model could not be brought here; what has come of it is kept for the next try, unless it was wrong."""


class NotOffered(PullFailed):
    """The place that was asked has no such model."""


class StoreFailed(ServerError):
    """The library's folder cannot be read or written."""


class NoRoom(StoreFailed):
    """The disk is full, or would be."""


def store_fault(error: OSError) -> StoreFailed:
    """Say what kept us from reading or writing, without naming a place of this machine."""
    if error.errno in _FULL:
        return NoRoom("no space left on device")
    return StoreFailed(f"the library cannot be used: {error.strerror or type(error).__name__}")
