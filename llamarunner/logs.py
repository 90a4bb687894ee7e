"""The log on stderr: lines for people, or JSON lines.

Whatever is logged may hold what strangers wrote. So what cannot be printed is escaped, and no text can begin a line of
its own: in a record about a request line breaks are escaped too, and what follows one elsewhere is indented.

A record may carry `fields`, a mapping, as `extra`: keys of its own in the JSON line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from llamarunner.config import LogFormat, LoggingSettings

CONTINUED = "\n    "


def set_up(settings: LoggingSettings, *, format: LogFormat | None = None, verbose: bool = False) -> None:
    """Log to stderr; `format` and `verbose` go over the settings, also over those to come."""
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    logging.getLogger().addHandler(Handler(sys.stderr, format, verbose))
    configure(settings)


def configure(settings: LoggingSettings) -> None:
    """Take over new settings, if the log is ours."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Handler):
            handler.configure(settings)


class Handler(logging.StreamHandler[TextIO]):
    """Writes records as the settings want it; debug records are of our own rooms only."""

    def __init__(self, stream: TextIO, format: LogFormat | None, verbose: bool) -> None:
        super().__init__(stream)
        self._format = format
        self._verbose = verbose

    def configure(self, settings: LoggingSettings) -> None:
        form = self._format or settings.format
        if form == "auto":
            form = "text" if self.stream.isatty() else "json"
        self.setFormatter(TextFormatter() if form == "text" else JsonFormatter())
        level = logging.DEBUG if self._verbose else logging.getLevelNamesMapping()[settings.level.upper()]
        logging.getLogger().setLevel(max(level, logging.INFO))
        logging.getLogger("llamarunner").setLevel(level)


class TextFormatter(logging.Formatter):
    """`2026-11-21 15:31:53,847 INFO    llamarunner.access: …`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if text.isprintable():
            return text
        breaks = "\\n" if fields_of(record) else CONTINUED
        return breaks.join(map(printable, text.split("\n")))


class JsonFormatter(logging.Formatter):
    """One object a line: timestamp (UTC), level, logger, message, the record's fields, and an exception's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "timestamp": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def printable(text: str) -> str:
    """Escape what is no printable character, as Python writes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
