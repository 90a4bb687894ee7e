"""S-28: more than sixty requests that no honest client sends, or few do, as bytes on a socket."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doors import open_house

BODY = '{"model":"nobody"}'
LENGTH = f"Content-Length: {len(BODY)}\r\n"
END = "Connection: close\r\n\r\n"
HOST = "Host: localhost\r\n"
POST = "POST /v1/chat/completions HTTP/1.1\r\n" + HOST
GET = "GET /health HTTP/1.1\r\n" + HOST


def chunked(*chunks: str, coding: str = "chunked") -> str:
    framed = "".join(f"{len(chunk):x}\r\n{chunk}\r\n" for chunk in chunks)
    return f"{POST}Transfer-Encoding: {coding}\r\n{END}{framed}0\r\n\r\n"


# What is asked, and the status that comes; 0 is a close without any answer. 404 means that the body was read and
# understood, since there is no such model.
FINE: dict[str, tuple[str | bytes, int]] = {
    "plain get": (GET + END, 200),
    "head": (f"HEAD /health HTTP/1.1\r\n{HOST}{END}", 200),
    "HTTP/1.0 with host": (f"GET /health HTTP/1.0\r\n{HOST}\r\n", 200),
    "query": (f"GET /health?a=b HTTP/1.1\r\n{HOST}{END}", 200),
    "many spaces before a value": (f"GET /health HTTP/1.1\r\nHost:    localhost\r\n{END}", 200),
    "header name in capitals": (f"GET /health HTTP/1.1\r\nHOST: localhost\r\n{END}", 200),
    "UTF-8 in a header": (f"{GET}X-Name: caf\u00e9\r\n{END}", 200),
    "an offer of h2c": (
        f"{GET}Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        200,
    ),
    "an offer of h2c without a close, and what follows it": (
        f"{GET}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n{GET}{END}",
        200,
    ),
    "an offer of h2c with a body": (f"{POST}Upgrade: h2c\r\nConnection: Upgrade\r\n{LENGTH}\r\n{BODY}", 404),
    "body with length": (f"{POST}{LENGTH}{END}{BODY}", 404),
    "chunked": (chunked(BODY), 404),
    "chunked in pieces": (chunked(*BODY), 404),
    "chunked in capitals": (chunked(BODY, coding="CHUNKED"), 404),
    "a trailer": (f"{POST}Transfer-Encoding: chunked\r\n{END}12\r\n{BODY}\r\n0\r\nX-Sum: 1\r\n\r\n", 404),
    "a chunk extension": (f"{POST}Transfer-Encoding: chunked\r\n{END}12;a=b\r\n{BODY}\r\n0\r\n\r\n", 404),
    "expectation unknown": (f"{POST}Expect: the-unexpected\r\n{LENGTH}{END}{BODY}", 404),
    "identity": (f"{POST}Content-Encoding: identity\r\n{LENGTH}{END}{BODY}", 404),
    "empty line before": ("\r\n" + GET + END, 200),
    "percent-encoded": (f"GET /%68ealth HTTP/1.1\r\n{HOST}{END}", 200),
}
REFUSED: dict[str, tuple[str | bytes, int]] = {
    "HTTP/0.9": (f"GET /health HTTP/0.9\r\n{HOST}{END}", 400),
    "HTTP/0.9 without version": ("GET /health\r\n\r\n", 400),
    "HTTP/1.2": (f"GET /health HTTP/1.2\r\n{HOST}{END}", 400),
    "HTTP/2.0": (f"GET /health HTTP/2.0\r\n{HOST}{END}", 400),
    "HTTP/3.0": (f"GET /health HTTP/3.0\r\n{HOST}{END}", 400),
    "preface of HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no protocol": (f"GET /health\r\n{HOST}{END}", 400),
    "wrong protocol": (f"GET /health HTCPCP/1.1\r\n{HOST}{END}", 400),
    "version with a letter": (f"GET /health HTTP/1.x\r\n{HOST}{END}", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32, 400),
    "junk": (b"\x00\x01\x02\x03\r\n\r\n", 400),
    "absolute form": (f"GET http://localhost/health HTTP/1.1\r\n{HOST}{END}", 400),
    "absolute form, other host": (f"GET http://evil.example/health HTTP/1.1\r\n{HOST}{END}", 400),
    "two slashes": (f"GET //evil.example/health HTTP/1.1\r\n{HOST}{END}", 400),
    "authority form": (f"CONNECT localhost:80 HTTP/1.1\r\n{HOST}{END}", 400),
    "asterisk form": (f"OPTIONS * HTTP/1.1\r\n{HOST}{END}", 400),
    "no target": (f"GET  HTTP/1.1\r\n{HOST}{END}", 400),
    "space in the target": (f"GET /a b HTTP/1.1\r\n{HOST}{END}", 400),
    "NUL in the target": (f"GET /hea\0lth HTTP/1.1\r\n{HOST}{END}", 400),
    "raw bytes in the target": (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    "long target": (f"GET /{'a' * 9000} HTTP/1.1\r\n{HOST}{END}", 400),
    "no host": (f"GET /health HTTP/1.1\r\n{END}", 400),
    "two hosts": (f"{GET}Host: evil.example\r\n{END}", 400),
    "no host in HTTP/1.0": ("GET /health HTTP/1.0\r\n\r\n", 403),
    "empty host": (f"GET /health HTTP/1.1\r\nHost:\r\n{END}", 403),
    "space before the colon": (f"{GET}X-Name : a\r\n{END}", 400),
    "folded header": (f"{GET}X-Name: a\r\n b\r\n{END}", 400),
    "bare LF": ("GET /health HTTP/1.1\nHost: localhost\n\n", 400),
    "bare CR": (f"{GET}X-Name: a\rb\r\n{END}", 400),
    "NUL in a header": (f"{GET}X-Name: a\0b\r\n{END}", 400),
    "control character in a header": (f"{GET}X-Name: a\x01b\r\n{END}", 400),
    "header without colon": (f"{GET}X-Name\r\n{END}", 400),
    "header without name": (f"{GET}: a\r\n{END}", 400),
    "bracket in a header name": (f"{GET}X[Name]: a\r\n{END}", 400),
    "header not in UTF-8": (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Name: caf\xe9\r\nConnection: close\r\n\r\n",
        400,
    ),
    "UTF-8 in a header name": (f"{GET}X-Caf\u00e9: a\r\n{END}", 400),
    "long header": (f"{GET}X-Name: {'a' * 9000}\r\n{END}", 400),
    "200 headers": (GET + "".join(f"X-{n}: a\r\n" for n in range(200)) + END, 400),
    "length and chunked": (f"{POST}{LENGTH}Transfer-Encoding: chunked\r\n{END}12\r\n{BODY}\r\n0\r\n\r\n", 400),
    "two lengths": (f"{POST}{LENGTH}Content-Length: 3\r\n{END}{BODY}", 400),
    "the same length twice": (f"{POST}{LENGTH}{LENGTH}{END}{BODY}", 400),
    "length with plus": (f"{POST}Content-Length: +18\r\n{END}{BODY}", 400),
    "negative length": (f"{POST}Content-Length: -1\r\n{END}{BODY}", 400),
    "hexadecimal length": (f"{POST}Content-Length: 0x12\r\n{END}{BODY}", 400),
    "length with a list": (f"{POST}Content-Length: 18, 18\r\n{END}{BODY}", 400),
    "length in other digits": (f"{POST}Content-Length: \u0661\u0668\r\n{END}{BODY}", 400),
    "length beyond 64 bits": (f"{POST}Content-Length: {2**70}\r\n{END}{BODY}", 400),
    "a terabyte": (f"{POST}Content-Length: {10**12}\r\n{END}{BODY}", 413),
    "coding xchunked": (chunked(BODY, coding="xchunked"), 400),
    "coding identity": (f"{POST}Transfer-Encoding: identity\r\n{END}", 400),
    "coding identity, chunked": (chunked(BODY, coding="identity, chunked"), 400),
    "coding gzip, chunked": (chunked(BODY, coding="gzip, chunked"), 400),
    "coding chunked, identity": (chunked(BODY, coding="chunked, identity"), 400),
    "coding chunked twice": (chunked(BODY, coding="chunked, chunked"), 400),
    "coding in two headers": (chunked(BODY, coding="identity\r\nTransfer-Encoding: chunked"), 400),
    "coding with vertical tab": (chunked(BODY, coding="\x0bchunked"), 400),
    "coding in HTTP/1.0": (chunked(BODY).replace("HTTP/1.1", "HTTP/1.0", 1), 400),
    "chunk size not hexadecimal": (f"{POST}Transfer-Encoding: chunked\r\n{END}xyz\r\n{BODY}\r\n0\r\n\r\n", 400),
    "negative chunk size": (f"{POST}Transfer-Encoding: chunked\r\n{END}-12\r\n{BODY}\r\n0\r\n\r\n", 400),
    "chunk size with 0x": (f"{POST}Transfer-Encoding: chunked\r\n{END}0x12\r\n{BODY}\r\n0\r\n\r\n", 400),
    "chunk size beyond 64 bits": (f"{POST}Transfer-Encoding: chunked\r\n{END}{'f' * 20}\r\n{BODY}\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (f"{POST}Transfer-Encoding: chunked\r\n{END}2\r\n{BODY}\r\n0\r\n\r\n", 400),
    "long chunk extension": (f"{POST}Transfer-Encoding: chunked\r\n{END}12;{'a' * 20_000}\r\n{BODY}\r\n0\r\n\r\n", 400),
    "gzip": (f"{POST}Content-Encoding: gzip\r\n{LENGTH}{END}{BODY}", 415),
    "gzip, not a bomb": (f"{POST}Content-Encoding: br\r\n{LENGTH}{END}{BODY}", 415),
    "websocket": (f"{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", 400),
    "websocket with a second request as body": (
        f"{POST}Connection: Upgrade\r\nUpgrade: websocket\r\n{LENGTH}\r\n{GET}{END}",
        400,
    ),
    "unknown path": (f"GET /v1/nothing HTTP/1.1\r\n{HOST}{END}", 404),
    "unknown method": (f"BREW /health HTTP/1.1\r\n{HOST}{END}", 400),
    "wrong method": (f"DELETE /health HTTP/1.1\r\n{HOST}{END}", 405),
    "path upwards": (f"GET /v1/models/../../etc/passwd HTTP/1.1\r\n{HOST}{END}", 404),
    "path upwards, encoded": (f"GET /v1/models/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n{HOST}{END}", 404),
    "empty body": (f"{POST}Content-Length: 0\r\n{END}", 400),
    "no body": (f"{POST}{END}", 400),
}
CASES = FINE | REFUSED


async def test_every_request_has_its_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is answered once, with the right status, as JSON if refused; nothing is logged with a traceback."""
    async with open_house(tmp_path, models={}) as house:
        answers = {name: await house.request(request) for name, (request, _) in CASES.items()}
        assert {name: _statuses(answer) for name, answer in answers.items()} == {
            name: [CASES[name][1]] for name in CASES
        }
        assert [name for name in REFUSED if b'{"error":{"code":"' not in answers[name]] == []
    assert [record for record in caplog.records if record.exc_info] == []


async def test_the_server_goes_on_after_each(tmp_path: Path) -> None:
    """No odd request takes another connection's answer, or the server, with it."""
    async with open_house(tmp_path, models={}) as house:
        for request, _ in REFUSED.values():
            await house.request(request)
            assert _statuses(await house.request(GET + END)) == [200]


async def test_a_refused_body_is_no_second_request(tmp_path: Path) -> None:
    """What a refused request carried is never read as a request of its own."""
    inner = GET + END
    framings = [
        f"Transfer-Encoding: identity, chunked\r\n\r\n{len(inner):x}\r\n{inner}\r\n0\r\n\r\n",
        f"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{inner}",
    ]
    async with open_house(tmp_path, models={}) as house:
        for framing in framings:
            assert _statuses(await house.request(POST + framing)) == [400]


def test_there_are_enough() -> None:
    assert len(CASES) >= 60


def _statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"^HTTP/\d\.\d (\d+)", answer, re.MULTILINE)]


async def test_an_answer_to_an_offer_of_another_protocol_says_that_it_is_the_last(tmp_path: Path) -> None:
    """What the client sent behind it was kept for that protocol, so it must know that it was not read."""
    async with open_house(tmp_path, models={}) as house:
        answer = await house.request(f"{GET}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n{GET}\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1
