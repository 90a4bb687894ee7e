"""What goes to a terminal: nothing that a model or a server says may steer it."""

from __future__ import annotations

import sys
from typing import IO

_CONTROLS = dict.fromkeys([*range(0x09), 0x0B, 0x0C, 0x0D, *range(0x0E, 0x20), *range(0x7F, 0xA0)])


def harmless(text: str, out: IO[str]) -> str:
    """The text as it may be written there: whole to a file, without control characters to a terminal."""
    return text.translate(_CONTROLS) if out.isatty() else text


def say(text: str) -> None:
    """Print what came from elsewhere."""
    print(harmless(text, sys.stdout), flush=True)
