"""Speech to text with faster-whisper, as a program with an HTTP API on a loopback port.

`python -m llamarunner.workers.whisper --model FOLDER --port 0` loads the model, tries it, listens, and prints one line
of JSON on stdout, `{"event": "ready", "port": …, "pid": …}`; all else goes to stderr. The API key comes from
`WHISPER_API_KEY`. SIGTERM ends it at once, with exit code 0. A model that cannot be loaded is exit code 1, a mistake in
the arguments 2.

* `POST /transcribe` takes the fields of `whisper_decode.Asked` as JSON, and answers 200 with one line of JSON for each
  fact: `segment`, `progress` (seconds done, and of the whole if the file tells), and at last `done` or `error`. An
  empty line every second means that the work goes on, or waits for its turn. Hanging up ends the work before the
  model's next step.
* `GET /health`, `GET /v1/models`, and `GET /props`, which tells the slots as llama.cpp does. `GET /idle` answers 200
  when nothing is decoded or waits for it, else 503.

The recording is read from a path. The key is known to the server alone, and so are the paths.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hmac
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from aiohttp import web

from llamarunner.workers.program import die_with_parent, fail, give_memory_back, reserve_stdout, write_no_files
from llamarunner.workers.whisper_decode import Asked, Line, Transcription
from llamarunner.workers.whisper_model import Cancelled, Model, Options
from llamarunner.workers.whisper_queue import Turns

BEAT_SECONDS = 1.0
IDLE_SECONDS = 60.0  # after which memory that is only kept for speed goes back to the system
STALL_SECONDS = 600.0  # in which a turn must tell something, or it is given up
log = logging.getLogger("whisper")


class Hearing:
    """The handlers, over one model."""

    def __init__(self, model: Model, key: str) -> None:
        self._model = model
        self._key = f"Bearer {key}".encode()
        self._turns = Turns(model.slots)
        self._threads = ThreadPoolExecutor(model.slots, "hear")
        self._at_work = 0
        self._idle: asyncio.TimerHandle | None = None

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._ask_for_key])
        app.router.add_get("/health", self._about)
        app.router.add_get("/v1/models", self._about)
        app.router.add_get("/props", self._about)
        app.router.add_get("/idle", self._about_work)
        app.router.add_post("/transcribe", self._transcribe)
        return app

    @web.middleware
    async def _ask_for_key(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, self._key):
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        return await handler(request)

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "total_slots": self._model.slots})

    async def _about_work(self, _: web.Request) -> web.Response:
        return web.json_response({"at_work": self._at_work}, status=503 if self._at_work else 200)

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(**await request.json())
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)

        def tell(line: Line) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        work = Work(Transcription(self._model, asked, tell), self._threads)
        try:
            with self._busy():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._finish(work, asked.client, lines))
                    await _tell(response, lines, work)
        except* ConnectionError:
            pass  # it hung up
        return response

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Count the work, and clean up some time after the last."""
        if self._idle:
            self._idle.cancel()
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, give_memory_back)

    async def _finish(self, work: Work, client: str, lines: asyncio.Queue[Line | None]) -> None:
        """Do the work in turns with others."""
        try:
            more = True
            while more:
                async with self._turns.turn(client):
                    more = await work.step()
        except Cancelled:
            pass
        except Exception:
            log.exception("a recording could not be heard")
            lines.put_nowait({"type": "error", "code": "server_error", "message": "The model failed.", "param": None})
        finally:
            work.transcription.close()
            lines.put_nowait(None)


class Work:
    """A transcription whose steps are done in threads, and what is known of its pace."""

    def __init__(self, transcription: Transcription, threads: ThreadPoolExecutor) -> None:
        self.transcription = transcription
        self._threads = threads
        self._began: float | None = None  # when the running step did, or told something last

    async def step(self) -> bool:
        """Do one step. When it is cancelled, it still waits for its thread: the slot is not free before."""
        step = asyncio.get_running_loop().run_in_executor(self._threads, self.transcription.step)
        self._began = time.monotonic()
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            self.transcription.cancel()
            await asyncio.wait([step])
            step.exception()  # nobody else will ask
            raise
        finally:
            self._began = None

    def heard(self) -> None:
        if self._began is not None:
            self._began = time.monotonic()

    @property
    def stalled(self) -> bool:
        return self._began is not None and time.monotonic() > self._began + STALL_SECONDS


async def _tell(response: web.StreamResponse, lines: asyncio.Queue[Line | None], work: Work) -> None:
    """Write the lines as they come, and in silence a beat."""
    while True:
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                line = await lines.get()
        except TimeoutError:
            if not work.stalled:
                await response.write(b"\n")
            continue
        if line is None:
            return
        work.heard()
        await response.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


async def serve(model: Model, stdout: int, port: int) -> None:
    """Listen until the process ends."""
    app = Hearing(model, os.environ.get("WHISPER_API_KEY", "")).application()
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    listening = runner.addresses[0][1]
    os.write(stdout, json.dumps({"event": "ready", "port": listening, "pid": os.getpid()}).encode() + b"\n")
    await asyncio.Event().wait()


def main(arguments: list[str]) -> int:
    options, port = parse(arguments)
    stdout = reserve_stdout()
    die_with_parent()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported, with the first silence to skip
    logging.basicConfig(level=logging.WARNING)
    try:
        model = Model(options)
    except Exception as error:  # the libraries have no exception of their own
        return fail(f"error: the model could not be loaded: {type(error).__name__}: {error}", 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: os._exit(0))  # the libraries' own end may wait for ever
    write_no_files()
    asyncio.run(serve(model, stdout, port))
    return 0


def parse(arguments: list[str]) -> tuple[Options, int]:
    parser = argparse.ArgumentParser(prog="whisper", description="Speech to text with faster-whisper.")
    parser.add_argument("--model", dest="folder", required=True, metavar="FOLDER")
    parser.add_argument("--port", type=int, default=0)
    for field in dataclasses.fields(Options)[1:]:
        kind = int if isinstance(field.default, int) else str
        parser.add_argument("--" + field.name.replace("_", "-"), type=kind, default=field.default)
    chosen = vars(parser.parse_args(arguments))
    port = chosen.pop("port")
    return Options(**chosen), port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
