"""Answers of LM Studio's REST API v0: OpenAI's, and how fast they were, why they ended, and by what they were made.

    {…, "stats": {…}, "model_info": {…}, "runtime": {…}}

In a stream all that stands in the last chunk, so a chunk that may be the last is held back until the next one comes.
The figures are llama.cpp's `timings`; the reason is in its `__verbose`, which has to be asked for (`VERBOSE`). Neither
is passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llamarunner.catalog import ModelEntry
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.lmstudio import described
from llamarunner.dialects.strict_json import dumps
from llamarunner.dialects.usage import Usage, told

Object = dict[str, Any]
StopReason = Literal[
    "eosFound",
    "maxPredictedTokensReached",
    "stopStringFound",
    "toolCalls",
    "userStopped",
    "modelUnloaded",
    "failed",
    "contextLengthReached",
]
VERBOSE = {"verbose": True}  # makes llama.cpp say why an answer ended
_REASONS: dict[object, StopReason] = {
    "eos": "eosFound",
    "word": "stopStringFound",
    "limit": "maxPredictedTokensReached",
}


@dataclass(frozen=True, slots=True)
class Stats:
    """How fast an answer was; null is what the model's process did not tell."""

    tokens_per_second: float | None  # of the generation alone
    time_to_first_token: float | None  # seconds of reading the prompt
    generation_time: float | None  # seconds
    stop_reason: StopReason


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What made the answer; `context_length` is in tokens, those that one request can use."""

    arch: str | None
    quant: str | None
    format: Literal["gguf"]
    context_length: int | None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The program that ran the model."""

    name: str
    version: str | None
    supported_formats: list[str]


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer that is there whole; what is not told here is as OpenAI's API has it."""

    id: str
    object: Literal["chat.completion", "text_completion"]
    created: int  # Unix time
    model: str  # the id of the instance that answered
    choices: list[Object]
    usage: Object
    stats: Stats
    model_info: ModelInfo
    runtime: Runtime


def model_info(entry: ModelEntry, context_length: int | None) -> ModelInfo:
    """Describe a model that runs; `context_length` is what it was granted."""
    facts = described.model(entry)
    quantization = facts.quantization.name if facts.quantization else None
    return ModelInfo(facts.architecture, quantization, "gguf", context_length)


def stop_reason(finish_reason: object, verbose: Mapping[str, Any]) -> StopReason:
    """Why an answer ended, by OpenAI's reason and by what llama.cpp says in `__verbose`, which may be empty."""
    if finish_reason == "tool_calls":
        return "toolCalls"
    kind = verbose.get("stop_type") or ("limit" if finish_reason == "length" else "eos")
    if kind == "limit" and verbose.get("truncated") is True:
        return "contextLengthReached"
    return _REASONS.get(kind, "eosFound")


class Telling:
    """One answer on its way: `whole`, or `chunk` for each event of a stream and `last` at its end."""

    def __init__(self) -> None:
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._verbose: Mapping[str, Any] = {}
        self._finish: object = None
        self._held: Object | None = None

    @property
    def tokens(self) -> Usage:
        """How many tokens it was, as far as it has been told."""
        return told(self._usage, self._timings)

    def whole(self, answer: Object, info: ModelInfo, runtime: Runtime) -> bytes:
        """Tell an answer that is there whole."""
        return dumps({**self._plain(answer), **self._extras(info, runtime)})

    def chunk(self, data: str) -> list[bytes]:
        """Tell the data of the next event: of chunks, all that cannot be the last. Raises as `event_of`."""
        chunk = self._plain(event_of(data))
        ready = [] if self._held is None else [self._held]
        self._held = chunk if self._finish or not chunk.get("choices") else None
        if self._held is None:
            ready.append(chunk)
        return [dumps(one) for one in ready]

    def last(self, info: ModelInfo, runtime: Runtime) -> list[bytes]:
        """Tell the last chunk, if there was one."""
        return [] if self._held is None else [dumps({**self._held, **self._extras(info, runtime)})]

    def _plain(self, answer: Object) -> Object:
        """Take from an answer, or from a part of it, what is told otherwise."""
        self._usage = answer.get("usage") or self._usage
        self._timings = answer.pop("timings", None) or self._timings
        self._verbose = answer.pop("__verbose", None) or self._verbose
        choices = answer.get("choices")
        finished = [one.get("finish_reason") for one in choices if isinstance(one, dict)] if choices else []
        self._finish = next((reason for reason in finished if reason), self._finish)
        if answer.get("object") == "text_completion":
            answer["id"] = str(answer.get("id", "")).replace("chatcmpl-", "cmpl-", 1)
        return answer

    def _extras(self, info: ModelInfo, runtime: Runtime) -> Object:
        timings = self._timings
        stats = Stats(
            tokens_per_second=_number(timings.get("predicted_per_second")),
            time_to_first_token=_seconds(timings.get("prompt_ms")),
            generation_time=_seconds(timings.get("predicted_ms")),
            stop_reason=stop_reason(self._finish, self._verbose),
        )
        return {"stats": asdict(stats) | self._drafts(), "model_info": asdict(info), "runtime": asdict(runtime)}

    def _drafts(self) -> Object:
        """What a draft model did, if there was one."""
        total, accepted = self._timings.get("draft_n"), self._timings.get("draft_n_accepted")
        if not isinstance(total, int) or not isinstance(accepted, int):
            return {}
        return {
            "total_draft_tokens_count": total,
            "accepted_draft_tokens_count": accepted,
            "rejected_draft_tokens_count": total - accepted,
            "ignored_draft_tokens_count": 0,
        }


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _seconds(milliseconds: object) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else None
