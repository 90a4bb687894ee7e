"""What is known of one request, and who is told when it is over: the log, the metrics, and the bus, once each.

    with services.records.open(Record(request_id, door, client, method, path)) as record:
        record.model_id = entry.id
        ...

The guards open one for every HTTP request, as `request[RECORD]`; whatever else is answered, such as a chat over a
websocket, opens its own. It is filled in on the way. Neither the prompt nor the answer is in it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from llamarunner.dialects import strict_json
from llamarunner.dialects.usage import Usage
from llamarunner.errors import LlamaRunnerError
from llamarunner.events import Bus, RequestFinished
from llamarunner.fleet.lease import Lease
from llamarunner.server.metrics import Metrics

access = logging.getLogger("llamarunner.access")
prompts = logging.getLogger("llamarunner.prompts")

CLIENT_GONE = 499  # as nginx has it
MAX_PROMPT = 10_000  # characters of it in a log
PROMPT_FIELDS = ("system", "instructions", "messages", "prompt", "input", "query", "documents")


@dataclass(slots=True, eq=False)
class Record:
    """One request. What is None is not known, or did not happen."""

    request_id: str
    door: str
    client: str  # its address
    method: str = ""
    path: str = ""  # as it came, without its query
    dialect: str = ""  # of requests to models
    model_id: str | None = None  # of the catalog; never what a client wrote
    stream: bool = False
    admitted: bool = False  # whether it was within the client's limits
    status: int = 0  # how it ended; a stream that broke off has the status of the failure
    seconds: float = 0.0
    queue_seconds: float | None = None  # until the model was ours, without its loading
    load_seconds: float | None = None  # for which the request waited while its model was loaded
    first_token_seconds: float | None = None  # until the first byte of a stream
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None
    _began: float = field(default_factory=time.perf_counter)

    def leased(self, lease: Lease) -> None:
        """Take over how long a lease was waited for."""
        self.queue_seconds, self.load_seconds = lease.queue_seconds, lease.load_seconds or None

    def first_token(self) -> None:
        """The first byte of the model's answer is here."""
        self.first_token_seconds = time.perf_counter() - self._began

    def used(self, usage: Usage) -> None:
        """Take over the tokens that an answer tells. Call it at the end of a stream: it measures its speed by that."""
        self.prompt_tokens, self.completion_tokens, self.tokens_per_second = usage
        if usage.tokens_per_second is None and self.first_token_seconds is not None and (usage.completion or 0) > 1:
            generating = time.perf_counter() - self._began - self.first_token_seconds
            self.tokens_per_second = ((usage.completion or 0) - 1) / max(generating, 1e-6)

    def fields(self) -> dict[str, object]:
        """Say it for a log; times in milliseconds."""
        told = {
            "request_id": self.request_id,
            "door": self.door,
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "ms": _ms(self.seconds),
            "dialect": self.dialect or None,
            "model": self.model_id,
            "stream": self.stream or None,
            "queue_ms": _ms(self.queue_seconds),
            "load_ms": _ms(self.load_seconds),
            "first_token_ms": _ms(self.first_token_seconds),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": None if self.tokens_per_second is None else round(self.tokens_per_second, 2),
        }
        return {name: value for name, value in told.items() if value is not None}

    def event(self) -> RequestFinished:
        return RequestFinished(
            request_id=self.request_id,
            door=self.door,
            client=self.client,
            method=self.method,
            path=self.path,
            status=self.status,
            seconds=self.seconds,
            model_id=self.model_id,
            stream=self.stream,
            first_token_seconds=self.first_token_seconds,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
        )


RECORD = web.RequestKey("record", Record)
OPENING_FIELDS = ("request_id", "client", "method", "path", "status", "ms")  # which every line begins with


class Records:
    """The requests under way, and the telling of those that are over."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics
        self.active: set[Record] = set()

    @contextmanager
    def open(self, record: Record) -> Iterator[Record]:
        """Tell about a request when it is over; unless its status is set, it is what its end means."""
        self.active.add(record)
        status = 200
        try:
            yield record
        except LlamaRunnerError as error:
            status = error.status
            raise
        except (asyncio.CancelledError, ConnectionError):
            status = CLIENT_GONE
            raise
        except BaseException:
            status = 500
            raise
        finally:
            self.active.discard(record)
            record.status = record.status or status
            record.seconds = time.perf_counter() - record._began
            self._tell(record)

    def _tell(self, record: Record) -> None:
        self._metrics.count(record)
        if record.admitted:  # a storm of refusals must not drive other events out of their queues
            self._bus.publish(record.event())
        if access.isEnabledFor(logging.INFO):
            fields = record.fields()
            access.info("%s", _line(fields), extra={"fields": fields})


def log_prompt(record: Record, document: Mapping[str, object]) -> None:
    """Log what a request asks; for owners who want that (`logging.prompts`)."""
    asked = strict_json.dumps({name: document[name] for name in PROMPT_FIELDS if name in document}).decode()
    fields = {"request_id": record.request_id, "model": record.model_id}
    prompts.info("%s %s", record.request_id, asked[:MAX_PROMPT], extra={"fields": fields})


def _line(fields: Mapping[str, object]) -> str:
    opening = "{request_id} {client} {method} {path} {status} {ms} ms".format_map(fields)
    rest = (f" {name}={value}" for name, value in fields.items() if name not in OPENING_FIELDS)
    return opening + "".join(rest)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
