"""The log: two forms, and no way to forge a line of it."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llamarunner import logs
from llamarunner.config import LoggingSettings

EVIL = "a\x1b[31m\n2026-11-21 15:31:53,847 INFO    llamarunner: forged\r\u202e\x9b\udc80"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(message: str, *args: object, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord("llamarunner.test", logging.INFO, __file__, 1, message, args, more.pop("exc_info", None))
    vars(made).update(more)
    return made


@pytest.fixture
def clean_loggers() -> Iterator[None]:
    names = ("", "llamarunner", "watchfiles")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers
    for logger, level in before:
        logger.setLevel(level)


def test_a_line_for_people() -> None:
    line = logs.TextFormatter().format(record("%s is ready after %.2f s", "a", 1.5))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO    llamarunner\.test: a is ready after 1\.50 s", line
    )


def test_a_line_of_json() -> None:
    line = json.loads(logs.JsonFormatter().format(record("%s is ready", "a", fields={"model": "a", "ms": 1.5})))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {"level": "info", "logger": "llamarunner.test", "message": "a is ready", "model": "a", "ms": 1.5}


def test_json_has_the_traceback_in_the_same_line() -> None:
    try:
        raise ValueError("because")
    except ValueError:
        text = logs.JsonFormatter().format(record("it failed", exc_info=sys.exc_info()))
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("ValueError: because")


def test_what_cannot_be_printed_is_escaped_in_both_forms() -> None:
    for formatter in (logs.TextFormatter(), logs.JsonFormatter()):
        for more in ({}, {"fields": {"path": EVIL}}):
            text = formatter.format(record("%s", EVIL, **more))
            assert all(c.isprintable() or c == "\n" for c in text)
            assert "\\x1b[31m" in text or "\\u001b[31m" in text
            text.encode()


def test_a_line_cannot_be_forged() -> None:
    told = logs.TextFormatter().format(record("%s", EVIL))
    assert [line[:8] for line in told.split("\n")[1:]] == ["    2026"]
    assert "\n" not in logs.TextFormatter().format(record("%s", EVIL, fields={"path": EVIL}))
    assert "\n" not in logs.JsonFormatter().format(record("%s", EVIL))


@pytest.mark.parametrize(
    ("wanted", "given", "stream", "is_json"),
    [
        ("text", None, io.StringIO, False),
        ("json", None, Terminal, True),
        ("auto", None, Terminal, False),
        ("auto", None, io.StringIO, True),
        ("text", "json", io.StringIO, True),
    ],
)
def test_which_form(clean_loggers: None, wanted: Any, given: Any, stream: type[io.StringIO], is_json: bool) -> None:
    handler = logs.Handler(stream(), given, verbose=False)
    handler.configure(LoggingSettings(format=wanted))
    handler.handle(record("hello"))
    assert handler.stream.getvalue().startswith("{") is is_json  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("level", "verbose", "ours", "others"),
    [
        ("info", False, logging.INFO, logging.INFO),
        ("info", True, logging.DEBUG, logging.INFO),
        ("debug", False, logging.DEBUG, logging.INFO),
        ("error", False, logging.ERROR, logging.ERROR),
    ],
)
def test_which_level(clean_loggers: None, level: Any, verbose: bool, ours: int, others: int) -> None:
    logs.set_up(LoggingSettings(level=level), verbose=verbose)
    assert logging.getLogger("llamarunner.fleet").getEffectiveLevel() == ours
    assert logging.getLogger("asyncio").getEffectiveLevel() == others
    logs.configure(LoggingSettings(level="warning"))
    assert logging.getLogger("llamarunner.fleet").getEffectiveLevel() == (logging.DEBUG if verbose else logging.WARNING)


def test_a_log_that_is_not_ours_is_left_alone(clean_loggers: None) -> None:
    before = logging.getLogger("llamarunner").level
    logs.configure(LoggingSettings(level="error"))
    assert logging.getLogger("llamarunner").level == before
