"""What every chat has, in whatever language: messages, each with a role.

llama.cpp is lenient here in odd ways: it answers a chat without messages with made-up text, and calls a missing role a
failure of the server. The rest of a body is its to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llamarunner.errors import InvalidRequest

ROLES = ("assistant", "developer", "function", "system", "tool", "user")
BLIND = "Model '{}' does not support image inputs."


def check_messages(document: Mapping[str, object]) -> None:
    """Raise InvalidRequest, naming the field, unless there is at least one message and each has a known role."""
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list of at least one message.", param="messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(f"'messages[{number}]' must be an object.", param=f"messages[{number}]")
        if message.get("role") not in ROLES:
            known = ", ".join(ROLES)
            raise InvalidRequest(f"'messages[{number}].role' must be one of {known}.", param=f"messages[{number}].role")


def shows_images(messages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a conversation, as OpenAI writes it, has images."""
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
