"""The examples of the LlamaRunner Pro API in `tests/examples`, and what it means that an answer is like one of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent / "examples"
ADDRESS = "http://localhost:1234"  # of the examples; real ones are on other ports
ALIASES = {"qwen2.5-7b-instruct": "demo-chat", "text-embedding-model": "demo-embed", "whisper-base": "demo-whisper"}


def text(name: str) -> str:
    return (EXAMPLES / name).read_text()


def document(name: str) -> Any:
    """Read a JSON example, without the comments and dots that are meant for people."""
    plain = re.sub(r" // .*", "", text(name)).replace(", ...]", "]")
    return json.loads(plain)


def differences(example: Any, real: Any, place: str = "", nulls: frozenset[str] = frozenset()) -> list[str]:
    """Tell which fields of an example are not in an answer, or not of its type; those in `nulls` may be null.

    The answer may have more fields. A list is like another if it is not empty and all its elements are like the other's
    first.
    """
    if example is None or (real is None and place.rpartition(".")[2] in nulls):
        return []
    if isinstance(example, dict) and isinstance(real, dict):
        missing = [f"{place}.{name} is missing" for name in example.keys() - real.keys()]
        common = [name for name in example if name in real]
        return missing + [
            one for name in common for one in differences(example[name], real[name], f"{place}.{name}", nulls)
        ]
    if isinstance(example, list) and isinstance(real, list):
        wrong = [one for item in real for one in differences(example[0], item, f"{place}[]", nulls)]
        return wrong if real else [f"{place} is empty"]
    kinds = (int, float) if type(example) is float else (type(example),)
    return [] if type(real) in kinds else [f"{place} is {real!r}, not like {example!r}"]
