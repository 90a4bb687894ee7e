#!/usr/bin/env python3
"""A real child program that speaks llama-server's HTTP and misbehaves on request.

It takes llama-server's flags, and switches of its own (see `FLAGS`) that spoil its start or its end. A request can
carry `"fake": {...}` to spoil one answer:

    tokens N         how many tokens to send (default 5)       delay S        seconds between tokens
    prefill S        silence before the first byte             line N         one token of N bytes
    status N         answer with this status and an error      print TEXT     print this first
    deltas LIST      say these deltas instead of tokens, the last one with the reason "tool_calls"
    progress LIST    tell these shares of a prompt as processed first, as llama.cpp does
    timings {...}    tell them at the end, as llama.cpp does, and the usage
    end {...}        what else it says at the end; its finish_reason is the choice's
    then WHAT        after the tokens: die, kill, hang, freeze, garbage, short, reset, stop (without an end)

Where a client cannot say so, as in another dialect, the prompt or the last message may be that object as JSON. With
`--ctx-size` a prompt that has more characters is refused; a token is a character here.

What happened is written to the file named by `--fake-journal`, one JSON object a line: start, request, body, hangup,
end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from aiohttp import web

Json = dict[str, Any]

FLAGS = {
    "--fake-journal": dict(help="write down what happens"),
    "--fake-slow": dict(type=float, default=0.0, help="seconds of loading, answered with 503"),
    "--fake-late": dict(type=float, default=0.0, help="seconds before anything is printed"),
    "--fake-never": dict(action="store_true", help="never become ready, and say nothing more"),
    "--fake-exit": dict(type=int, help="exit with this code while loading"),
    "--fake-print": dict(default="", help="print this before exiting"),
    "--fake-signal": dict(type=int, help="die of this signal while loading"),
    "--fake-stubborn": dict(action="store_true", help="ignore SIGTERM"),
    "--fake-offspring": dict(action="store_true", help="leave a grandchild that ignores SIGTERM"),
    "--fake-flood": dict(type=int, default=0, help="print so many MB without a line break"),
    "--fake-slow-metrics": dict(type=float, default=0.0, help="seconds until /metrics answers"),
    "--fake-once": dict(help="misbehave at the start only if this file does not exist yet, and create it"),
}

METRICS = """\
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 4
# HELP llamacpp:n_tokens_max Largest observed sequence length
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 7
# HELP llamacpp:requests_processing Number of requests processing
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
# HELP process_cpu_seconds_total Not llama.cpp's
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1
"""


def main() -> None:
    parser = argparse.ArgumentParser("llama-server")
    for flag in ("--host", "--port", "--model", "--alias", "--parallel", "--ctx-size", "--cache-ram", "--pooling"):
        parser.add_argument(flag)
    switches = (
        "--metrics",
        "--no-ui",
        "--no-webui",
        "--kv-unified",
        "--offline",
        "--embeddings",
        "--reranking",
        "--jinja",
    )
    for flag in switches:
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--version", action="version", version="version: 1 (fake)")
    for flag, options in FLAGS.items():
        parser.add_argument(flag, **options)
    args = parser.parse_args()
    asyncio.run(serve(args))


async def serve(args: argparse.Namespace) -> None:
    journal = Journal(args.fake_journal)
    if args.fake_stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    journal.write("start", pid=os.getpid(), argv=sys.argv[1:])
    if spoiled(args):
        await spoil_start(args, journal)
    server = Server(args, journal)
    runner = web.AppRunner(server.app(), handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(args.port or 0))
    await site.start()
    print(f"main: server is listening on http://127.0.0.1:{runner.addresses[0][1]} - loading", flush=True)
    await asyncio.sleep(args.fake_slow if server.spoiled else 0)
    if not (args.fake_never and server.spoiled):
        server.loaded = True
        journal.write("loaded")
    await asyncio.Event().wait()


def spoiled(args: argparse.Namespace) -> bool:
    if not args.fake_once:
        return True
    if os.path.exists(args.fake_once):
        return False
    open(args.fake_once, "w").close()
    return True


async def spoil_start(args: argparse.Namespace, journal: Journal) -> None:
    await asyncio.sleep(args.fake_late)
    if args.fake_offspring:
        code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code])  # noqa: ASYNC220
        journal.write("offspring", pid=child.pid)
    block = "x" * 2**20
    for _ in range(args.fake_flood):
        sys.stdout.write(block)
    print("loading model", flush=True)
    if args.fake_print:
        print(args.fake_print, flush=True)
    if args.fake_signal is not None:
        os.kill(os.getpid(), args.fake_signal)
    if args.fake_exit is not None:
        sys.stdout.flush()
        os._exit(args.fake_exit)


class Journal:
    def __init__(self, path: str | None) -> None:
        self._path = path

    def write(self, what: str, **facts: object) -> None:
        if self._path:
            with open(self._path, "a") as file:
                file.write(json.dumps({"what": what, "at": time.monotonic(), **facts}) + "\n")


class Server:
    def __init__(self, args: argparse.Namespace, journal: Journal) -> None:
        self.args = args
        self.journal = journal
        self.loaded = False
        self.stuck_until = 0.0
        self.spoiled = not args.fake_once or not os.path.exists(args.fake_once + ".done")
        if args.fake_once:
            open(args.fake_once + ".done", "w").close()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**31, middlewares=[self.guard])
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.health)
        app.router.add_get("/props", self.props)
        app.router.add_get("/idle", self.idle)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/{path:.*}", self.generate)
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler) -> web.StreamResponse:  # type: ignore[no-untyped-def]
        key = os.environ.get("LLAMA_API_KEY")
        if key and request.path != "/health" and request.headers.get("Authorization") != f"Bearer {key}":
            return error(401, "Invalid API Key", "authentication_error")
        if not self.loaded:
            return error(503, "Loading model", "unavailable_error")
        return await handler(request)

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def idle(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=503 if time.monotonic() < self.stuck_until else 200)

    async def props(self, request: web.Request) -> web.Response:
        granted = {"n_ctx": int(self.args.ctx_size or 4096)}
        return web.json_response({"total_slots": int(self.args.parallel or 4), "default_generation_settings": granted})

    async def metrics(self, request: web.Request) -> web.Response:
        self.journal.write("metrics")
        if not self.args.metrics:
            return error(501, "This server does not support metrics endpoint.", "not_supported_error")
        await asyncio.sleep(self.args.fake_slow_metrics)
        return web.Response(text=METRICS)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        if len(raw) < 10_000:
            self.journal.write("body", path=request.path, body=body)
        self.journal.write("request", path=request.path, model=body.get("model"), headers=dict(request.headers))
        if parts := [one["content"] for one in body.get("messages", []) if isinstance(one.get("content"), list)]:
            self.journal.write("parts", parts=parts)
        try:
            if refusal := self.too_long(body):
                return refusal
            field, tool = TOOLS.get(request.path, ("", None))
            if tool and field in body and "fake" not in body:
                return web.json_response({"model": body.get("model"), **tool(body)})
            return await self.answer(request, body, body.get("fake") or told_to(body))
        except (asyncio.CancelledError, ConnectionError):
            self.journal.write("hangup")
            raise

    def too_long(self, body: Json) -> web.Response | None:
        limit = int(self.args.ctx_size or 0)
        inputs = [body["input"]] if isinstance(body.get("input"), str) else body.get("input") or [text_of(body)]
        count = max(map(len, inputs), default=0)
        if not limit or count <= limit:
            return None
        facts = {"n_prompt_tokens": count, "n_ctx": limit}
        told = {"code": 400, "message": "too long", "type": "exceed_context_size_error", **facts}
        return web.json_response({"error": told}, status=400)

    async def answer(self, request: web.Request, body: Json, fake: Json) -> web.StreamResponse:
        if "print" in fake:
            print(fake["print"], flush=True)
        self.stuck_until = time.monotonic() + fake.get("stuck", 0)
        await asyncio.sleep(max(fake.get("prefill", 0), fake.get("stuck", 0)))
        if "status" in fake:
            return error(fake["status"], fake.get("message", "as you wish"), fake.get("type", "server_error"))
        tokens = ["x" * fake["line"]] if "line" in fake else [f"t{i} " for i in range(fake.get("tokens", 5))]
        if body.get("stream"):
            return await self.stream(request, body, fake, tokens)
        return await self.whole(request, body, fake, tokens)

    async def stream(self, request: web.Request, body: Json, fake: Json, tokens: list[str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Server": "fake"})
        await response.prepare(request)
        for share in fake.get("progress", []):
            told = {"total": 100, "cache": 0, "processed": int(100 * share), "time_ms": 1}
            first: Json = {"choices": [{"index": 0, "delta": {"role": "assistant"}}], "prompt_progress": told}
            await response.write(f"data: {json.dumps(first)}\n\n".encode())
        deltas = fake.get("deltas") or [{"content": token} for token in tokens]
        for index, delta in enumerate(deltas):
            choices: list[Json] = [{"index": 0, "delta": delta}]
            if request.path == "/v1/completions":
                choices = [{"index": 0, "text": delta["content"]}]
            if "deltas" in fake and index == len(deltas) - 1:
                choices[0]["finish_reason"] = "tool_calls"
            chunk = {"id": "c", "object": "chat.completion.chunk", "model": body.get("model"), "choices": choices}
            if request.path == "/infill":
                chunk = {"content": delta["content"], "stop": False}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.journal.write("token", index=index)
            await asyncio.sleep(fake.get("delay", 0))
        await self.then(request, response, fake)
        if fake.get("then") == "stop":
            return response
        if "end" in fake:
            last = {"index": 0, **({"text": ""} if request.path == "/v1/completions" else {"delta": {}})}
            await response.write(f"data: {json.dumps(ended(fake, {'id': 'c', 'choices': [last]}))}\n\n".encode())
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": len(deltas), "total_tokens": 3 + len(deltas)}
            await response.write(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode())
        if "timings" in fake:
            told: Json = {"id": "c", "object": "chat.completion.chunk", "choices": [], "timings": fake["timings"]}
            await response.write(f"data: {json.dumps(told, separators=(',', ':'))}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        self.journal.write("end")
        return response

    async def whole(self, request: web.Request, body: Json, fake: Json, tokens: list[str]) -> web.StreamResponse:
        message = {"role": "assistant", "content": "".join(tokens)}
        choices = [{"index": 0, "message": message}]
        answer = {"id": "c", "object": "chat.completion", "model": body.get("model"), "choices": choices}
        if timings := fake.get("timings"):
            prompt = timings["prompt_n"] + timings["cache_n"]
            answer |= {"usage": {"prompt_tokens": prompt, "completion_tokens": timings["predicted_n"]}}
        if "end" in fake:
            answer = ended(fake, answer)
        text = json.dumps(answer)
        await asyncio.sleep(fake.get("delay", 0) * len(tokens))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(text) + (100 if fake.get("then") == "short" else 0)
        if "then" in fake:
            await response.prepare(request)
            await response.write(text[:10].encode())
            await self.then(request, response, fake)
        else:
            await response.prepare(request)
            await response.write(text.encode())
        self.journal.write("end")
        return response

    async def then(self, request: web.Request, response: web.StreamResponse, fake: Json) -> None:
        match fake.get("then"):
            case "die":
                os._exit(fake.get("code", 7))
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                await asyncio.Event().wait()
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "garbage":
                assert request.transport
                request.transport.write(b"\x00\xffnot a chunk\r\n\r\n")
                request.transport.close()
            case "reset" | "short":
                assert request.transport
                request.transport.abort()


def ended(fake: Json, answer: Json) -> Json:
    """An answer, or its last chunk, with what it is to say at the end."""
    more = dict(fake["end"])
    answer["choices"][0]["finish_reason"] = more.pop("finish_reason", "stop")
    return {**answer, **more}


def text_of(body: Json) -> str:
    """All text of a prompt."""
    prompt = body.get("prompt") or [one.get("content") for one in body.get("messages", [])]
    parts = prompt if isinstance(prompt, list) else [prompt]
    return "".join(part if isinstance(part, str) else "x" for part in parts)


def told_to(body: Json) -> Json:
    """What a prompt says about its answer."""
    prompt = body.get("prompt") or body.get("input_prefix") or [one.get("content") for one in body.get("messages", [])]
    last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
    if not isinstance(last, str) or not last.startswith("{"):
        return {}
    told: Json = json.loads(last)
    return told


def embedded(body: Json) -> Json:
    """Vectors that differ by the length of the text, the longest first, as no server promises their order."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = [{"index": at, "embedding": [0.6, 0.8 * (len(text) or 1), 0.0]} for at, text in enumerate(texts)]
    return {"data": data[::-1], "usage": {"prompt_tokens": sum(map(len, texts))}}


def rendered(body: Json) -> Json:
    return {"prompt": "".join(f"<{one['role']}>{one['content']}" for one in body["messages"])}


# What takes no time: the field that it needs, and what is made of the body.
TOOLS = {
    "/v1/embeddings": ("input", embedded),
    "/tokenize": ("content", lambda body: {"tokens": [ord(letter) for letter in body["content"]]}),
    "/detokenize": ("tokens", lambda body: {"content": "".join(map(chr, body["tokens"]))}),
    "/apply-template": ("messages", rendered),
}


def error(status: int, message: str, kind: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message, "type": kind}}, status=status)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
