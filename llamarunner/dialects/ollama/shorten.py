"""Chats that are longer than a model's context lose their oldest messages, as Ollama has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]
MEDIUM = 768 * 4  # what an image counts for, in characters
MARGIN = 0.95  # of the context; how long a text is in tokens is a guess here


def shortened(messages: Sequence[Message], refusal: Mapping[str, object]) -> list[Message]:
    """Drop the oldest messages until the rest should fit, at least one; the same messages if none can be dropped.

    Kept are those of the system, the last one, and no result of a tool without its call. `refusal` is what llama.cpp
    told: `n_prompt_tokens` and `n_ctx`.
    """
    tokens, room = refusal.get("n_prompt_tokens"), refusal.get("n_ctx")
    share = room / tokens * MARGIN if isinstance(tokens, int) and isinstance(room, int) and tokens > 0 else 1.0
    sizes = [_size(message) for message in messages]
    excess = sum(sizes) * (1 - share)
    dropped: set[int] = set()
    for at, message in enumerate(messages[:-1]):
        if message.get("role") == "system":
            continue
        orphan = message.get("role") == "tool" and bool(dropped)
        if dropped and excess <= 0 and not orphan:
            break
        dropped.add(at)
        excess -= sizes[at]
    return [message for at, message in enumerate(messages) if at not in dropped]


def _size(message: Message) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else []
    return sum(len(part.get("text", "")) if part.get("type") == "text" else MEDIUM for part in parts)
