"""A model's answer as LM Studio's SDKs read it: packets, made from the events of a streamed chat or completion.

    {"type": "promptProcessingProgress", "progress": 0.5, "details": {…}}
    {"type": "fragment", "fragment": {"content": "Hel", "tokensCount": 1, "reasoningType": "none", …}}
    {"type": "toolCallGenerationStart", "toolCallId": "111"} … {"type": "toolCallGenerationEnd", "toolCallRequest": …}

The last packet, `success`, has the statistics. Calls of tools come in pieces, one after the other, with ids of ours:
LM Studio's are short numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llamarunner.dialects import strict_json
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.lmstudio.v0 import stop_reason
from llamarunner.dialects.sse import DONE
from llamarunner.dialects.usage import Usage, told
from llamarunner.errors import InvalidRequest

Packet = dict[str, Any]


class Prediction:
    """One answer, as far as it has come.

    `name_call` gives the id of a call of a tool. `tags` is what stands before and after thoughts; without, they are
    not told.
    """

    def __init__(self, name_call: Callable[[], str], tags: tuple[str, str] | None = ("<think>", "</think>")) -> None:
        self._name_call = name_call
        self._tags = tags
        self._thinking = False
        self._call: dict[str, str] | None = None  # the one that is being told: index, id, name, arguments
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._verbose: Mapping[str, Any] = {}
        self._progress = -1.0
        self._done = False
        self.finish_reason: str | None = None
        self.text: list[str] = []  # of the answer and of the thoughts

    @property
    def complete(self) -> bool:
        """Whether the model has come to an end, or the stream just broke off."""
        return self._done or self.finish_reason is not None

    @property
    def tokens(self) -> Usage:
        return told(self._usage, self._timings)

    def take(self, data: str) -> list[Packet]:
        """Read the data of one event. Raises what the model's error means, or BackendFailed."""
        if data == DONE:
            self._done = True
            return []
        event = event_of(data)
        self._usage = event.get("usage") or self._usage
        self._timings = event.get("timings") or self._timings
        self._verbose = event.get("__verbose") or self._verbose
        packets = list(self._progressed(event.get("prompt_progress")))
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        delta = choice.get("delta") or {"content": choice.get("text")}
        if thought := delta.get("reasoning_content"):
            packets += self._thought(thought)
        if text := delta.get("content"):
            packets += [*self._answering(), self._fragment(text, "none")]
        for piece in delta.get("tool_calls") or []:
            packets += [*self._answering(), *self._calling(piece)]
        if reason := choice.get("finish_reason"):
            self.finish_reason = reason
            packets += [*self._answering(), *self._called()]
        return packets

    def _progressed(self, progress: Any) -> Iterator[Packet]:
        total, done = (progress.get(name) if isinstance(progress, dict) else None for name in ("total", "processed"))
        if not isinstance(total, int) or not isinstance(done, int) or total <= 0:
            return
        cached = progress.get("cache")
        cached = cached if isinstance(cached, int) else 0
        share = min(1.0, done / total)
        if share > self._progress:
            self._progress = share
            details = {
                "cachedTokenCount": cached,
                "totalPromptTokenCount": total,
                "processedPromptTokenCount": done,
                "unprocessedPromptTokenCount": max(0, total - done),
            }
            yield {"type": "promptProcessingProgress", "progress": share, "details": details}

    def _fragment(self, text: str, kind: str) -> Packet:
        self.text.append(text)
        fragment = {
            "content": text,
            "tokensCount": 1,
            "containsDrafted": False,
            "reasoningType": kind,
            "isStructural": kind.endswith("Tag"),
        }
        return {"type": "fragment", "fragment": fragment}

    def _thought(self, text: str) -> Iterator[Packet]:
        if self._tags is None:
            return
        if not self._thinking:
            self._thinking = True
            yield self._fragment(self._tags[0], "reasoningStartTag")
        yield self._fragment(text, "reasoning")

    def _answering(self) -> Iterator[Packet]:
        """End the thoughts, if there were some."""
        if self._thinking and self._tags:
            self._thinking = False
            yield self._fragment(self._tags[1], "reasoningEndTag")

    # ── calls of tools ─────────────────────────────────────────────────────────────────────────────────────────────

    def _calling(self, piece: Mapping[str, Any]) -> Iterator[Packet]:
        index, function = str(piece.get("index", 0)), piece.get("function") or {}
        if self._call is None or self._call["index"] != index:
            yield from self._called()
            self._call = {"index": index, "id": self._name_call(), "name": "", "arguments": ""}
            yield {"type": "toolCallGenerationStart", "toolCallId": self._call["id"]}
        if name := function.get("name"):
            self._call["name"] += name
            yield {"type": "toolCallGenerationNameReceived", "name": self._call["name"]}
        if arguments := function.get("arguments"):
            self._call["arguments"] += arguments
            yield {"type": "toolCallGenerationArgumentFragmentGenerated", "content": arguments}

    def _called(self) -> Iterator[Packet]:
        """End the call that is being told, if there is one."""
        if self._call is None:
            return
        call, self._call = self._call, None
        raw = strict_json.dumps({"name": call["name"], "arguments": call["arguments"]}).decode()
        try:
            arguments = strict_json.loads_object(call["arguments"].encode() or b"{}")
        except InvalidRequest:
            error = {"title": f"The model did not call '{call['name'][:200]}' with an object of arguments."}
            yield {"type": "toolCallGenerationFailed", "error": error, "rawContent": raw}
            return
        request = {"id": call["id"], "type": "function", "name": call["name"], "arguments": arguments}
        yield {"type": "toolCallGenerationEnd", "toolCallRequest": request, "rawContent": raw}

    # ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────

    def stats(self, *, first_token_seconds: float | None, seconds: float, cancelled: bool) -> dict[str, object]:
        """The statistics; what is not known is left out."""
        used = self.tokens
        prompt, completion = used.prompt, used.completion
        known = {
            "stopReason": "userStopped" if cancelled else stop_reason(self.finish_reason, self._verbose),
            "stopString": self._verbose.get("stopping_word") or None,
            "tokensPerSecond": used.tokens_per_second,
            "timeToFirstTokenSec": first_token_seconds,
            "totalTimeSec": seconds,
            "promptTokensCount": prompt,
            "predictedTokensCount": completion,
            "totalTokensCount": None if prompt is None or completion is None else prompt + completion,
        }
        return {name: value for name, value in known.items() if value is not None}
