"""Pictures that a person names in what is said to a model."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

_WORD = re.compile(r""""[^"\n]+"|'[^'\n]+'|(?:\\ |\S)+""")
_END = re.compile(r"\.(?:png|jpe?g|webp)(?!\w)", re.IGNORECASE)
_QUOTES = "\"'"


def taken(text: str) -> tuple[str, Sequence[Path]]:
    """Take the pictures out of a text whose paths are there; a path may be in quotes, or have `\\ ` for a space.

    Raises nothing: what cannot be looked at stays in the text.
    """
    found: list[Path] = []
    parts: list[str] = []
    place = 0
    for word in _WORD.finditer(text):
        path, end = _picture(word.group())
        if path is None:
            continue
        found.append(path)
        parts.append(text[place : word.start()])
        place = word.start() + end
    return "".join((*parts, text[place:])).strip(), found


def encoded(path: Path) -> str:
    """A picture as Ollama's API takes it. Raises OSError."""
    return base64.b64encode(path.read_bytes()).decode()


def _picture(word: str) -> tuple[Path | None, int]:
    """The file that a word names, and where its name ends in the word: a comma, say, may follow."""
    if word[0] in _QUOTES and word[-1] == word[0]:
        name, end = word[1:-1], len(word)
        if not _END.search(name[-5:]):
            return None, 0
    else:
        suffix = _END.search(word)
        if suffix is None:
            return None, 0
        end = suffix.end()
        name = word[:end].replace("\\ ", " ")
    try:
        path = Path(name).expanduser()
        return (path if path.is_file() else None), end
    except (OSError, RuntimeError, ValueError):  # too long, of nobody's home, with a NUL
        return None, 0
