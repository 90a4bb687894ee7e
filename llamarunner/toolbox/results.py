"""What a call gave, as a model reads it: the JSON text of MCP's content array, no longer than is allowed; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

NOTE_BYTES = 200  # kept free for the note that something was cut


def output_of(content: Sequence[Mapping[str, object]], structured: object, most: int) -> str:
    """Write the content; `structured` stands in where there is none. At most so many bytes of UTF-8.

    Raises ValueError for what JSON cannot hold.
    """
    if not content and structured is not None:
        content = [_text(dumped(structured))]
    whole = dumped(content)
    size = len(whole.encode())
    return whole if size <= most else dumped(_cut(content, size, most))


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _cut(content: Sequence[Mapping[str, object]], size: int, most: int) -> list[Mapping[str, object]]:
    """Keep the first blocks, and of a text as much as there is room for."""
    room, kept = most - NOTE_BYTES, list[Mapping[str, object]]()
    for block in content:
        room -= len(dumped(block).encode()) + 1
        if room >= 0:
            kept.append(block)
            continue
        text = block.get("text")
        if isinstance(text, str):
            kept.append(_text(_shortened(text, -room)))
        break
    return [*kept, _text(f"[The result had {size} bytes and was cut here: at most {most} are read.]")]


def _shortened(text: str, bytes_over: int) -> str:
    """Take so many bytes, as JSON writes them, off the end of a text, and what its new block needs."""
    written = dumped(text).encode()[1:-1]
    kept = written[: max(0, len(written) - bytes_over)].decode(errors="ignore")
    while kept:
        try:
            return str(json.loads(f'"{kept}"'))
        except ValueError:  # in the middle of an escape, which has at most six characters
            kept = kept[:-1]
    return ""


def _text(text: str) -> Mapping[str, object]:
    return {"type": "text", "text": text}
