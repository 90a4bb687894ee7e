"""HTTP to the server, with the standard library: it is there at once, and these verbs ask one thing at a time."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llamarunner import __version__
from llamarunner.errors import LlamaRunnerError
from llamarunner.verbs.address import DEFAULT_PORT, Address

CONNECT_SECONDS = 5.0
LONGEST_ERROR = 1 << 20  # bytes

Json = dict[str, Any]


class NoServer(LlamaRunnerError):
    """Nobody listens there."""


class Refused(LlamaRunnerError):
    """The server says no, or cannot."""

    def __init__(self, answered: int, message: str) -> None:
        super().__init__(message)
        self.answered = answered  # its status; 200 for a failure inside a stream


class WrongDoor(LlamaRunnerError):
    """A server listens there that does not speak Ollama's API."""

    def __init__(self, address: Address) -> None:
        super().__init__(
            f"{address.url} does not speak Ollama's API. The door that does is usually at port {DEFAULT_PORT}; "
            "name it with --host, $LLAMARUNNER_HOST or $OLLAMA_HOST."
        )


class BrokenOff(LlamaRunnerError):
    """The server left in the middle, or is none of our kind."""


class Client:
    """Asks one server. Raises NoServer, WrongDoor, Refused or BrokenOff."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Json:
        """Ask for an answer in one piece; an empty one is an empty object."""
        with self._asked(method, path, body) as response:
            told = _object(_whole(response))
        if told.keys() == {"error"}:  # LM Studio says so of paths that it does not know, with status 200
            raise WrongDoor(self.address)
        return told

    def lines(self, path: str, body: Mapping[str, object]) -> Generator[Json, None, None]:
        """Ask by POST for lines of JSON. Close it to hang up, which ends the work."""
        with self._asked("POST", path, body) as response:
            while line := _line(response):
                told = _object(line)
                if "error" in told:
                    raise Refused(200, str(told["error"]))
                yield told

    @contextmanager
    def _asked(self, method: str, path: str, body: Mapping[str, object] | None) -> Iterator[http.client.HTTPResponse]:
        address = self.address
        kind = http.client.HTTPSConnection if address.tls else http.client.HTTPConnection
        connection = kind(address.host, address.port, timeout=CONNECT_SECONDS)
        headers: dict[str, str | bytes] = {"User-Agent": f"llamarunner/{__version__}", "Accept": "application/json"}
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}".encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connect(connection)
            with _told():
                connection.request(method, address.path + path, data, headers)
                response = connection.getresponse()
            if response.status >= 300:
                raise self._refusal(response)
            yield response
        finally:
            connection.close()

    def _refusal(self, response: http.client.HTTPResponse) -> LlamaRunnerError:
        """What a failure means; Ollama says its errors in plain text, so whoever has no such 404 is another server."""
        error = _error(response)
        if response.status == 404 and not isinstance(error, str):
            return WrongDoor(self.address)
        message = str(error["message"] if isinstance(error, dict) and "message" in error else error)
        if error is None:
            message = f"The server answered {response.status} {response.reason}."
        if response.status == 401:
            message += " Here it comes from --key or $LLAMARUNNER_API_KEY."
        return Refused(response.status, message)

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """Connect; from then on wait as long as it takes, for a model may be loading."""
        try:
            connection.connect()
        except OSError as error:
            reason = error.strerror or str(error)
            raise NoServer(
                f"No server answers at {self.address.url} ({reason}).\nStart it with: llamarunner serve"
            ) from None
        connection.sock.settimeout(None)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOff(f"The server broke off its answer ({error or type(error).__name__}).") from None


def _whole(response: http.client.HTTPResponse) -> bytes:
    with _told():
        return response.read()


def _line(response: http.client.HTTPResponse) -> bytes:
    with _told():
        line = response.readline()
    if line and not line.endswith(b"\n"):
        raise BrokenOff("The server broke off its answer.")
    return line


def _object(data: bytes) -> Json:
    try:
        told = json.loads(data) if data.strip() else {}
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BrokenOff("What answers there does not speak Ollama's language; is it another server?")
    return told


def _error(response: http.client.HTTPResponse) -> object:
    """What a refusal says, in whichever dialect; None if in none."""
    with _told():
        data = response.read(LONGEST_ERROR)
    try:
        error: object = json.loads(data)["error"]
    except (ValueError, TypeError, KeyError):
        return None
    return error
