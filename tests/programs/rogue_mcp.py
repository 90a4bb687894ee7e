"""An MCP server over stdio that misbehaves as its first argument says; plain Python, no SDK.

It speaks the old handshake, lists the tool `add`, and adds, unless its way is another.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

WAY = sys.argv[1]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOL = {"name": "add", "inputSchema": SCHEMA}


def say(message: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


LISTS: dict[str, list[dict[str, Any]]] = {
    "no_object": [{"name": "add", "inputSchema": {"type": "string"}}],
    "no_schema": [{"name": "add", "inputSchema": "all"}],
    "nested": [{"name": "add", "inputSchema": nested(40)}],
    "long_schema": [{"name": "add", "inputSchema": {"type": "object", "description": "x" * 40_000}}],
    "twice": [TOOL, TOOL],
    "many": [{**TOOL, "name": f"tool{number}"} for number in range(65)],
    "odd": [{**TOOL, "name": name} for name in ("a.b", "a b", 'say "hi"\n', "größe", "x" * 200)],
    "nameless": [{**TOOL, "name": ""}],
}


def listed(params: dict[str, Any]) -> dict[str, Any]:
    if WAY == "endless_list":
        return {"tools": [], "nextCursor": str(int(params.get("cursor") or 0) + 1)}
    return {"tools": LISTS.get(WAY, [TOOL])}


Content = list[dict[str, Any]]


def dies(number: Any, content: Content) -> None:
    print("out of luck", file=sys.stderr, flush=True)
    os._exit(3)


def sleeps(number: Any, content: Content) -> None:
    time.sleep(600)


def other_ids(number: Any, content: Content) -> None:
    for other in (number + 1, str(number) + "x", -1):
        say({"id": other, "result": {"content": content}})


def long_line(number: Any, content: Content) -> None:
    sys.stdout.write('{"jsonrpc": "2.0", "x": "')
    while True:
        sys.stdout.write("x" * 65_536)


def notifies(number: Any, content: Content) -> None:
    while True:
        say({"method": "notifications/message", "params": {"level": "info", "data": "x"}})


def asks(number: Any, content: Content) -> None:
    for one in range(1_000_000):
        say({"id": f"s{one}", "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}})


def prints(number: Any, content: Content) -> None:
    while True:
        sys.stderr.write("x" * 65_536)


def wrong_shape(number: Any, content: Content) -> None:
    say({"id": number, "result": {"content": "three"}})


def not_a_number(number: Any, content: Content) -> None:
    say({"id": number, "result": {"content": [], "structuredContent": {"x": float("nan")}}})


def refuses(number: Any, content: Content) -> None:
    say({"id": number, "error": {"code": -32000, "message": "not today"}})


def changes(number: Any, content: Content) -> None:
    say({"method": "notifications/tools/list_changed"})
    LISTS["changes"] = [{"name": "subtract", "inputSchema": SCHEMA}]
    adds(number, content)


def adds(number: Any, content: Content) -> None:
    say({"id": number, "result": {"content": content}})


CALLS = {
    call.__name__: call
    for call in (
        *(dies, sleeps, other_ids, long_line, notifies, asks),
        *(prints, wrong_shape, not_a_number, refuses, changes),
    )
}


def called(number: Any, params: dict[str, Any]) -> None:
    text = str(params["arguments"].get("a", 0) + params["arguments"].get("b", 0))
    CALLS.get(WAY, adds)(number, [{"type": "text", "text": text}])


def answer(message: dict[str, Any]) -> None:
    number, params = message.get("id"), message.get("params") or {}
    match message.get("method"):
        case "initialize" if WAY != "silent":
            version = "1999-01-01" if WAY == "other_version" else params["protocolVersion"]
            info = {"name": "rogue", "version": "1"}
            say(
                {
                    "id": number,
                    "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info},
                }
            )
        case "tools/list":
            say({"id": number, "result": listed(params)})
        case "tools/call":
            called(number, params)
        case "server/discover" if WAY == "strict":
            sys.exit("the first message must be initialize")
        case _ if number is not None and WAY != "silent":
            say({"id": number, "error": {"code": -32601, "message": "Method not found"}})


def main() -> None:
    print("rogue is starting", flush=True)  # a greeting, which is no message
    if WAY == "crashes":
        sys.exit("no configuration")
    if WAY == "stays":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    for line in sys.stdin:
        answer(json.loads(line))
    if WAY == "stays":
        time.sleep(600)


if __name__ == "__main__":
    main()
