"""A request of the Responses API as the body for /v1/chat/completions.

Items in a row that are one answer of the model (its reasoning, its text, its calls) become one message. Fields that are
not of this API pass to the model as they are; so do those that mean the same in a chat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from llamarunner.errors import InvalidRequest

Document = dict[str, Any]

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
NOT_FOR_CHATS = frozenset(
    {
        "prompt_cache_retention",
        "background",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "messages",
        "metadata",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "reasoning",
        "response_format",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
        "user",
    }
)
LOGPROBS = "message.output_text.logprobs"
EFFORTS = {"none": None, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}


def items_of(given: object) -> list[Document]:
    """The items of a request's `input`. Raises InvalidRequest that names the one at fault."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    if not isinstance(given, list) or not given:
        raise InvalidRequest("'input' must be a text or a list of at least one item.", param="input")
    for number, item in enumerate(given):
        if not isinstance(item, dict):
            raise InvalidRequest(f"'input[{number}]' must be an object.", param=f"input[{number}]")
    return [{"type": "message", **item} for item in given]


def chat(document: Mapping[str, Any], items: Sequence[Document], first: int = 0) -> Document:
    """The body for a chat that is streamed; `items` are all, of which the request's own begin at `first`.

    Raises InvalidRequest that names the field.
    """
    said = _messages(items, first)
    if instructions := _typed(document, "instructions", str):
        said = _merged([{"role": "system", "content": instructions}, *said])
    rest = {name: value for name, value in document.items() if name not in NOT_FOR_CHATS}
    asked = {
        "messages": said,
        "tools": _tools(_typed(document, "tools", list) or []),
        "tool_choice": _choice(document.get("tool_choice")),
        "parallel_tool_calls": document.get("parallel_tool_calls"),
        "response_format": _format(_typed(document, "text", dict) or {}),
        "max_tokens": _typed(document, "max_output_tokens", int),
        "chat_template_kwargs": _thinking(document),
        **_logprobs(document),
    }
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    return rest | {name: value for name, value in asked.items() if value not in (None, [])} | streamed


# ── messages ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _messages(items: Iterable[Document], first: int) -> list[Document]:
    said: list[Document] = []
    for number, item in enumerate(items):
        place = f"input[{number - first}]"
        match item.get("type"):
            case "message":
                _say(said, item, place)
            case "reasoning":
                _answer(said, "reasoning_content")["reasoning_content"] = _plain(
                    item.get("content") or item.get("summary"), place
                )
            case "function_call":
                _answer(said, "").setdefault("tool_calls", []).append(_call(item, place))
            case "function_call_output":
                content = _plain(item.get("output"), f"{place}.output")
                said.append({"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": content})
            case _:
                known = "message, reasoning, function_call, function_call_output"
                raise InvalidRequest(f"'{place}.type' must be one of {known}.", param=f"{place}.type")
    return _merged([{"content": "", **message} for message in said])


def _say(said: list[Document], item: Document, place: str) -> None:
    role = ROLES.get(str(item.get("role")))
    if role is None:
        raise InvalidRequest(f"'{place}.role' must be one of {', '.join(ROLES)}.", param=f"{place}.role")
    if role == "assistant":
        _answer(said, "content")["content"] = _plain(item.get("content"), f"{place}.content")
    elif role == "system":
        said.append({"role": role, "content": _plain(item.get("content"), f"{place}.content")})
    else:
        said.append({"role": role, "content": _content(item.get("content"), f"{place}.content")})


def _answer(said: list[Document], field: str) -> Document:
    """The model's answer that an item belongs to: the last message, unless it has such a field, or what comes later."""
    last = said[-1] if said else {}
    later = {"reasoning_content": ("reasoning_content", "content", "tool_calls"), "content": ("content", "tool_calls")}
    if last.get("role") != "assistant" or any(name in last for name in later.get(field, ())):
        said.append({"role": "assistant"})
    return said[-1]


def _merged(said: list[Document]) -> list[Document]:
    """Make the system messages at the beginning one: templates know no more."""
    count = next((at for at, message in enumerate(said) if message["role"] != "system"), len(said))
    if count < 2:
        return said
    return [{"role": "system", "content": "\n\n".join(one["content"] for one in said[:count])}, *said[count:]]


def _call(item: Document, place: str) -> Document:
    function = {"name": _text(item, "name", place), "arguments": _text(item, "arguments", place)}
    return {"id": _text(item, "call_id", place), "type": "function", "function": function}


def _content(content: object, place: str) -> object:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{place}[{number}]") for number, part in enumerate(_listed(content, place))]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: object, place: str) -> Document:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict):
        if kind in TEXTS:
            return {"type": "text", "text": _text(part, "text", place)}
        if kind == "input_image" and isinstance(part.get("image_url"), str):
            return {"type": "image_url", "image_url": {"url": part["image_url"]}}
        if kind in ("image_url", "input_audio"):
            return part
    raise InvalidRequest(f"'{place}' must be a part of type input_text, or input_image with an image_url.", param=place)


def _plain(content: object, place: str) -> str:
    """The text of what can be text alone."""
    if content is None or isinstance(content, str):
        return content or ""
    said = []
    for number, part in enumerate(_listed(content, place)):
        if isinstance(part, dict) and part.get("type") == "refusal":
            said.append(_text(part, "refusal", place))
        elif isinstance(part, dict) and part.get("type") in TEXTS:
            said.append(_text(part, "text", place))
        else:
            raise InvalidRequest(f"'{place}[{number}]' must be a text.", param=f"{place}[{number}]")
    return "".join(said)


def _listed(content: object, place: str) -> list[object]:
    if not isinstance(content, list):
        raise InvalidRequest(f"'{place}' must be a text or a list.", param=place)
    return content


def _text(item: Mapping[str, Any], name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"'{place}.{name}' must be a text.", param=f"{place}.{name}")
    return value


# ── the rest ───────────────────────────────────────────────────────────────────────────────────────────────────────

_KINDS = {str: "a text", list: "a list", dict: "an object", int: "a whole number", bool: "true or false"}


def _typed(document: Mapping[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InvalidRequest(f"'{name}' must be {_KINDS[kind]}.", param=name)
    return value


def flag(document: Mapping[str, Any], name: str, default: bool) -> bool:
    """Read a switch. Raises InvalidRequest."""
    value = _typed(document, name, bool)
    return default if value is None else bool(value)


def name_of(document: Mapping[str, Any], name: str) -> str | None:
    """Read a text, or none. Raises InvalidRequest."""
    return cast(str | None, _typed(document, name, str))


def _tools(tools: list[Any]) -> list[Document]:
    """The functions; tools that only OpenAI's servers have are not there."""
    told = []
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == "mcp":
            raise InvalidRequest(
                "MCP servers are used here by POST /api/v1/chat, with `integrations`.", param=f"{place}.type"
            )
        if not isinstance(kind, str):
            raise InvalidRequest(f"'{place}' must be an object with a type.", param=place)
        if kind == "function":
            _text(tool.get("function") or tool, "name", place)
            flat = {key: value for key, value in tool.items() if key != "type" and value is not None}
            told.append(tool if "function" in tool else {"type": "function", "function": flat})
    return told


def _choice(choice: object) -> object:
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise InvalidRequest("'tool_choice' must be auto, none, required, or name a function.", param="tool_choice")


def _format(text: Mapping[str, Any]) -> Document | None:
    wanted = text.get("format") or {}
    match wanted.get("type") if isinstance(wanted, dict) else "":
        case None | "text":
            return None
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            schema = {key: value for key, value in wanted.items() if key != "type"}
            return {"type": "json_schema", "json_schema": schema}
    raise InvalidRequest("'text.format.type' must be text, json_schema or json_object.", param="text.format.type")


def _thinking(document: Mapping[str, Any]) -> Document | None:
    given: Document | None = _typed(document, "chat_template_kwargs", dict)
    effort = (_typed(document, "reasoning", dict) or {}).get("effort")
    if effort is None:
        return given
    if effort not in EFFORTS:
        raise InvalidRequest(f"'reasoning.effort' must be one of {', '.join(EFFORTS)}.", param="reasoning.effort")
    level = EFFORTS[effort]
    return {"enable_thinking": level is not None, **({"reasoning_effort": level} if level else {}), **(given or {})}


def _logprobs(document: Mapping[str, Any]) -> Document:
    most = _typed(document, "top_logprobs", int) or 0
    if not most and LOGPROBS not in (_typed(document, "include", list) or []):
        return {}
    return {"logprobs": True, "top_logprobs": most}
