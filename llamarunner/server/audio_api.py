"""Speech to text: OpenAI's `/v1/audio/transcriptions` and `/v1/audio/translations`.

The form goes to disk as it comes; the model's worker reads the file there and tells what it hears, line by line. An
answer in one piece is made when all is heard; a stream sends each phrase as it comes. What the worker says against the
file is an error of the request. Progress, the end and failures are events on the bus.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import transcription
from llamarunner.dialects.transcription import TRANSCRIPTION, Lines, Transcript, Wanted
from llamarunner.errors import BackendFailed, InvalidRequest, LlamaRunnerError
from llamarunner.events import TranscriptionCompleted, TranscriptionFailed, TranscriptionProgress
from llamarunner.fleet.launch import Task
from llamarunner.server import relay, upload
from llamarunner.server.audio_form import AudioRequest, TranscriptionRequest, parse
from llamarunner.server.record import RECORD
from llamarunner.server.resolve import resolve_speech
from llamarunner.server.services import ACCOUNT, REQUEST_ID, TICKET, VIEW, Services
from llamarunner.server.upstream import Answer, Body, Call, ask
from llamarunner.server.watch import Patience, Phase, Watch

PATH = "/transcribe"  # of the worker
PROGRESS_SECONDS = 1.0  # least time between two events that tell it
HOUR = 3600


async def transcribe(request: web.Request) -> web.StreamResponse:
    """Write down what is said in a recording."""
    return await _answer(request, TranscriptionRequest, "transcribe")


async def translate(request: web.Request) -> web.StreamResponse:
    """Write down in English what is said in a recording."""
    return await _answer(request, AudioRequest, "translate")


@dataclass(slots=True)
class Job:
    """One recording and what is heard of it."""

    services: Services
    request_id: str
    entry: ModelEntry
    asked: AudioRequest
    wanted: Wanted
    call: Call
    heard: Transcript
    _lines: Lines = field(default_factory=Lines)
    _began: float = field(default_factory=time.monotonic)
    _told: float = 0.0

    def begin(self) -> None:
        """The model is there: count the time from now on."""
        self._began = time.monotonic()

    def take(self, data: bytes) -> Iterator[str]:
        """Take what the worker said, and yield what it adds to the text. Raises our errors."""
        for line in self._lines.feed(data):
            text = self.heard.take(line)
            self._tell_progress(line)
            if text:
                yield text

    def check_complete(self) -> None:
        """Raises BackendFailed if the worker ended without a word."""
        if not self.heard.complete:
            raise BackendFailed(f"The model '{self.entry.id}' broke off.")

    def body(self) -> tuple[str, bytes]:
        """The content type and the body of the whole answer."""
        content_type, written = transcription.FORMATS[self.asked.response_format]
        return content_type, written(self.heard, self.wanted)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Tell on the bus how the work in the block ends; a client that leaves is a failure too."""
        try:
            yield
        except LlamaRunnerError as error:
            self._tell_failure(error.message)
            raise
        except (asyncio.CancelledError, ConnectionError):
            self._tell_failure("The client hung up.")
            raise
        except Exception:
            self._tell_failure("The server met an unexpected error.")
            raise
        self._tell_end()

    def _tell_progress(self, line: Mapping[str, Any]) -> None:
        now = time.monotonic()
        seconds = line.get("end", self.heard.duration)
        if line["type"] != "done" and now >= self._told + PROGRESS_SECONDS:
            self._told = now
            whole = self.heard.whole_duration
            self.services.bus.publish(TranscriptionProgress(self.request_id, self.entry.id, seconds, whole))

    def _tell_failure(self, cause: str) -> None:
        self.services.bus.publish(TranscriptionFailed(self.request_id, self.entry.id, self.heard.task, cause))

    def _tell_end(self) -> None:
        heard = self.heard
        text = heard.text if self.services.settings.audio.text_in_events else None
        took = round(time.monotonic() - self._began, 3)
        facts = (self.request_id, self.entry.id, heard.task, heard.language, heard.duration, took, text)
        self.services.bus.publish(TranscriptionCompleted(*facts))


async def _answer(request: web.Request, kind: type[AudioRequest], task: str) -> web.StreamResponse:
    view = request.app[VIEW]
    services = view.services
    request[RECORD].dialect = TRANSCRIPTION.name

    def check(form: upload.Form) -> None:
        """Refuse before the file has come what can be refused by then."""
        asked = parse(kind, form.fields)
        if any(name == "model" for name, _ in form.fields):
            resolve_speech(view, asked.model, task)

    limit_mb = request[ACCOUNT].limits.file_upload_size_mb
    terms = upload.Terms(services.settings.server.body_idle_seconds, limit_mb, check)
    async with upload.received(request, services.spool, terms) as form:
        asked = parse(kind, form.fields)
        if form.size <= 0:
            raise InvalidRequest("'file' is missing." if form.size else "'file' is empty.", param="file")
        job = _job(request, asked, task, str(form.path))
        if asked.stream:
            request[TICKET].begin_stream()
            request[RECORD].stream = True
            return await _Events(request, job).run()
        return await _whole(request, job)


def _job(request: web.Request, asked: AudioRequest, task: str, path: str) -> Job:
    view = request.app[VIEW]
    audio = view.services.settings.audio
    entry = resolve_speech(view, asked.model, task)
    request[RECORD].model_id = entry.id
    wanted = Wanted()
    language = None
    if isinstance(asked, TranscriptionRequest):
        kinds = asked.timestamp_granularities
        wanted = Wanted("segment" in kinds or not kinds, "word" in kinds, "logprobs" in asked.include)
        language = asked.language
    document = {
        "path": path,
        "task": task,
        "language": language,
        "prompt": asked.prompt,
        "hotwords": asked.hotwords,
        "temperature": asked.temperature,
        "words": wanted.words or wanted.logprobs,
        "vad": asked.vad(audio.vad),
        "most_seconds": audio.max_duration_hours * HOUR,
        "client": request[ACCOUNT].client,
    }
    call = Call(entry, Task.TRANSCRIBE, PATH, Body(document))
    return Job(view.services, request[REQUEST_ID], entry, asked, wanted, call, Transcript(task))


async def _whole(request: web.Request, job: Job) -> web.StreamResponse:
    services = job.services
    watch = Watch(Patience.of(services.settings.server, pulse=False))
    with services.drain.counting(watch):
        with job.reported():
            async with watch, AsyncExitStack() as stack:
                answer = await ask(stack, services, job.call, watch)
                job.begin()
                request[RECORD].leased(answer.lease)
                while data := await answer.some():
                    watch.phase(Phase.NEXT_BYTE)
                    for _ in job.take(data):
                        pass
                job.check_complete()
        content_type, body = job.body()
        return await relay.whole(request, body, content_type, services)


class _Events(relay.Stream):
    """The answer as events, phrase by phrase."""

    def __init__(self, request: web.Request, job: Job) -> None:
        super().__init__(request, job.call, TRANSCRIPTION, job.services)
        self._job = job

    async def _copy(self) -> None:
        with self._job.reported():
            await super()._copy()

    async def _pump(self, answer: Answer, watch: Watch) -> None:
        job = self._job
        job.begin()
        heard = 0
        while data := await answer.some():
            watch.phase(Phase.NEXT_BYTE)
            for text in job.take(data):
                new = [word for segment in job.heard.segments[heard:] for word in segment.words]
                heard = len(job.heard.segments)
                await self._send(transcription.delta_event(text, tuple(new) if job.wanted.logprobs else None), watch)
        job.check_complete()
        await self._send(transcription.done_event(job.heard, job.wanted), watch)

    async def _send(self, event: bytes, watch: Watch) -> None:
        if not self._response.prepared:
            await self._response.prepare(self._request)
            self._record.first_token()
        self._said.add(event)
        watch.phase(Phase.CLIENT)
        await self._response.write(event)
        watch.phase(Phase.NEXT_BYTE)
