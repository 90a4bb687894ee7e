"""What the log tells, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llamarunner.config.model import Frozen

LogFormat = Literal["auto", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class LoggingSettings(Frozen):
    """The log, which goes to stderr."""

    format: LogFormat = Field(
        "text", description="text is for people, json is an object a line; auto is text on a terminal, json elsewhere."
    )
    level: LogLevel = Field("info", description="The least that is logged.")
    prompts: bool = Field(
        False, description="Log what requests ask of models, word for word (never the answers); off for privacy."
    )
