"""What every chat has, in whatever language: messages, each with a role.

llama.cpp is lenient here in odd ways: it answers a chat without messages with made-up text, and calls a missing role a
failure of the server. The rest of a body is its to judge.
"""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.errors import InvalidRequest

ROLES = ("assistant", "developer", "function", "system", "tool", "user")


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
