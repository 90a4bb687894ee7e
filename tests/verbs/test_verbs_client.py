"""What is told of servers that answer badly, or not at all; over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llamarunner.verbs.address import Address
from llamarunner.verbs.client import BrokenOff, Client, NoServer, Refused, WrongDoor


@contextmanager
def answering(*answers: str) -> Iterator[tuple[Client, list[bytes]]]:
    """A server that gives each caller one of these answers, and hangs up; and what it was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(65536))
                    connection.sendall(answer.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield Client(Address("127.0.0.1", server.getsockname()[1], key="secret")), asked
        thread.join(5)
    assert not thread.is_alive()


def whole(body: str, status: str = "200 OK") -> str:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


def chunked(*lines: str, end: str = "0\r\n\r\n") -> str:
    chunks = "".join(f"{len(line):x}\r\n{line}\r\n" for line in lines)
    return f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{end}"


def test_the_key_goes_along() -> None:
    with answering(whole("{}")) as (client, asked):
        assert client.ask("GET", "/api/ps") == {}
    assert asked[0].startswith(b"GET /api/ps HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in asked[0]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        ("404 Not Found", '{"error":"no such thing"}', "no such thing"),
        ("400 Bad Request", '{"error":{"message":"as OpenAI says it","code":1}}', "as OpenAI says it"),
        ("502 Bad Gateway", "<html>", "The server answered 502 Bad Gateway."),
        ("502 Bad Gateway", "[]", "The server answered 502 Bad Gateway."),
        ("401 No", '{"error":"A key!"}', "A key! Here it comes from --key or $LLAMARUNNER_API_KEY."),
    ],
)
def test_refusals_are_told_in_the_servers_words(status: str, body: str, message: str) -> None:
    with answering(whole(body, status)) as (client, _), pytest.raises(Refused) as refused:
        client.ask("POST", "/api/show", {"model": "x"})
    assert (refused.value.answered, refused.value.message) == (int(status[:3]), message)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("404 Not Found", '{"error":{"message":"There is nothing at /api/tags.","code":"not_found"}}'),
        ("404 Not Found", "<html>"),
        ("200 OK", '{"error":"Unexpected endpoint or method. (GET /api/tags)"}'),
    ],
    ids=["OpenAI's", "a page", "LM Studio's"],
)
def test_a_server_of_another_kind_is_told_apart(status: str, body: str) -> None:
    with answering(whole(body, status)) as (client, _), pytest.raises(WrongDoor, match="usually at port 11434"):
        client.ask("GET", "/api/tags")


@pytest.mark.parametrize(
    "answer", ["", "SSH-2.0-OpenSSH\r\n", whole("[1]"), whole("hello"), "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_what_is_no_answer_is_told(answer: str) -> None:
    with answering(answer) as (client, _), pytest.raises(BrokenOff):
        client.ask("GET", "/api/tags")


def test_lines_come_until_the_error_or_the_end() -> None:
    with answering(chunked('{"a":1}\n{"a"', ":2}\n"), chunked('{"a":1}\n', '{"error":"gone"}\n')) as (client, _):
        assert list(client.lines("/api/pull", {})) == [{"a": 1}, {"a": 2}]
        lines = client.lines("/api/pull", {})
        assert next(lines) == {"a": 1}
        with pytest.raises(Refused, match="gone"):
            next(lines)


def test_a_line_that_breaks_off_is_no_line() -> None:
    with answering(chunked('{"a":1}\n{"a"', end="")) as (client, _):
        lines = client.lines("/api/pull", {})
        assert next(lines) == {"a": 1}
        with pytest.raises(BrokenOff, match="broke off"):
            next(lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_where_nobody_listens_it_says_how_to_start_a_server(host: str) -> None:
    with pytest.raises(NoServer, match="Start it with: llamarunner serve"):
        Client(Address(host, 9)).ask("GET", "/api/ps")
