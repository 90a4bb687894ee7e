"""Conversations as LM Studio's SDKs send them, made into OpenAI's messages.

    {"messages": [{"role": "user", "content": [{"type": "text", "text": "…"}, {"type": "file", "identifier": …}]}]}

Content is always a list of parts. An assistant's calls of tools are parts, and so are the results, of the role `tool`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llamarunner.dialects import strict_json
from llamarunner.errors import InvalidRequest

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")


def messages(history: object, picture: Callable[[str, str], str], system: object = None) -> list[Message]:
    """Make OpenAI's messages.

    `picture` gives the data URL of an uploaded file, by its identifier and the place where it is named; it may raise
    InvalidRequest. `system` is a prompt for a conversation that has none of its own. Raises InvalidRequest that names
    the field.
    """
    given = history.get("messages") if isinstance(history, dict) else None
    if not isinstance(given, list):
        raise InvalidRequest("'history.messages' must be a list.", param="history.messages")
    made = [one for at, message in enumerate(given) for one in _made(message, f"history.messages[{at}]", picture)]
    if isinstance(system, str) and system and not any(one["role"] == "system" for one in made):
        made.insert(0, {"role": "system", "content": system})
    return made


def text_of(history: object) -> str:
    """All text of a conversation, without anything between. Raises InvalidRequest that names the field."""

    def refuse(identifier: str, place: str) -> str:
        raise InvalidRequest("A text to complete cannot have files.", param=place)

    return "".join(one["content"] for one in messages(history, refuse) if isinstance(one.get("content"), str))


def _made(message: Any, place: str, picture: Callable[[str, str], str]) -> Iterator[Message]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise InvalidRequest(f"'{place}.role' must be one of {', '.join(ROLES)}.", param=f"{place}.role")
    parts = message.get("content")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidRequest(f"'{place}.content' must be a list of parts.", param=f"{place}.content")
    if role == "tool":
        yield from (_result(part, f"{place}.content[{at}]") for at, part in enumerate(parts))
        return
    content: list[Message] = []
    calls: list[Message] = []
    for at, part in enumerate(parts):
        where = f"{place}.content[{at}]"
        match part.get("type"):
            case "text":
                content.append({"type": "text", "text": _text(part, "text", where)})
            case "file":
                content.append({"type": "image_url", "image_url": {"url": _picture(part, where, picture)}})
            case "toolCallRequest":
                calls.append(_call(part, where, len(calls)))
            case _:
                raise InvalidRequest(f"'{where}.type' is not known for {role}.", param=f"{where}.type")
    made: Message = {"role": role, "content": _content(content)}
    yield made | ({"tool_calls": calls} if calls else {})


def _content(parts: list[Message]) -> str | list[Message]:
    """One text where there is nothing else, which every template understands."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _picture(part: Message, place: str, picture: Callable[[str, str], str]) -> str:
    if part.get("fileType", "image") != "image":
        raise InvalidRequest(f"'{place}' is no image; only images can be shown to models.", param=f"{place}.fileType")
    return picture(_text(part, "identifier", place), f"{place}.identifier")


def _call(part: Message, place: str, index: int) -> Message:
    request = part.get("toolCallRequest")
    if not isinstance(request, dict):
        raise InvalidRequest(f"'{place}.toolCallRequest' must be an object.", param=f"{place}.toolCallRequest")
    arguments = request.get("arguments")
    function = {
        "name": _text(request, "name", f"{place}.toolCallRequest"),
        "arguments": strict_json.dumps(arguments if isinstance(arguments, dict) else {}).decode(),
    }
    name = request.get("id")
    return {"id": name if isinstance(name, str) else f"call-{index}", "type": "function", "function": function}


def _result(part: Message, place: str) -> Message:
    if part.get("type") != "toolCallResult":
        raise InvalidRequest(f"'{place}.type' must be toolCallResult.", param=f"{place}.type")
    called = part.get("toolCallId")
    made: Message = {"role": "tool", "content": _text(part, "content", place)}
    return made | ({"tool_call_id": called} if isinstance(called, str) else {})


def _text(holder: Message, name: str, place: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"'{place}.{name}' must be a text.", param=f"{place}.{name}")
    return value
