"""Predictions through LM Studio's sockets: answers to conversations, and texts that are completed, piece by piece.

The lease, the limits of time and the drain are those of the relay, and so is back-pressure: every packet is written
before more is read, so a client that does not read stops the model. A client that cancels gets what is known so far.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from llamarunner.catalog import Capability
from llamarunner.dialects import chat
from llamarunner.dialects.llama_cpp import ContextLengthExceeded
from llamarunner.dialects.lmstudio import sdk_config, sdk_errors, sdk_history
from llamarunner.dialects.lmstudio.sdk_frames import Sent, checked
from llamarunner.dialects.lmstudio.sdk_infos import Specifier
from llamarunner.dialects.lmstudio.sdk_prediction import Prediction
from llamarunner.dialects.lmstudio.v0 import VERBOSE
from llamarunner.dialects.ollama.shorten import shortened
from llamarunner.dialects.sse import Splitter
from llamarunner.errors import BackendFailed, InvalidRequest
from llamarunner.fleet.launch import Task
from llamarunner.server import upstream
from llamarunner.server.record import Record, log_prompt
from llamarunner.server.sdk_endpoints import Caller, Cancelled, Channel, Streaming
from llamarunner.server.sdk_models import Loaded, find_loaded
from llamarunner.server.upstream import Answer, Body, Call
from llamarunner.server.watch import Patience, Phase, Watch

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
STOPS = "stopAtLimit"  # the policy for a conversation that is too long; by the others its oldest messages are left out


class Predict(Sent):
    model_specifier: Specifier
    history: Any
    prediction_config_stack: Any
    fuzzy_preset_identifier: str | None = None


class Complete(Sent):
    model_specifier: Specifier
    raw_prompt: str
    prediction_config_stack: Any
    fuzzy_preset_identifier: str | None = None


@dataclass(slots=True)
class Question:
    """What is asked of a model."""

    path: str  # of its process
    document: dict[str, Any]
    config: dict[str, Any]  # as the client has it

    def shorten(self, refusal: ContextLengthExceeded) -> bool:
        """Drop the oldest messages, as many as the refusal lets expect; False if there are none to drop."""
        messages = self.document.get("messages")
        if not messages or self.config.get("llm.prediction.contextOverflowPolicy") == STOPS:
            return False
        left = shortened(messages, refusal.details)
        self.document["messages"] = left
        return len(left) < len(messages)


async def _predict(caller: Caller, parameter: object, channel: Channel) -> None:
    asked = checked(Predict, parameter)
    stack = asked.prediction_config_stack
    config = sdk_config.flattened(stack)
    if sdk_config.completes(stack):
        question = Question(COMPLETION, {"prompt": sdk_history.text_of(asked.history)}, config)
    else:
        system = config.get("llm.prediction.systemPrompt")
        question = Question(CHAT, {"messages": sdk_history.messages(asked.history, caller.picture, system)}, config)
        chat.check_messages(question.document)
    await _answer(caller, asked, channel, question, "predict")


async def _complete(caller: Caller, parameter: object, channel: Channel) -> None:
    asked = checked(Complete, parameter)
    config = sdk_config.flattened(asked.prediction_config_stack)
    await _answer(caller, asked, channel, Question(COMPLETION, {"prompt": asked.raw_prompt}, config), "completeRawText")


async def _answer(
    caller: Caller, asked: Predict | Complete, channel: Channel, question: Question, endpoint: str
) -> None:
    if asked.fuzzy_preset_identifier:
        raise sdk_errors.preset_not_found(asked.fuzzy_preset_identifier)
    one = await find_loaded(caller, asked.model_specifier)
    entry = one.instance.entry
    if Capability.VISION not in entry.capabilities and chat.shows_images(question.document.get("messages", ())):
        raise InvalidRequest(chat.BLIND.format(entry.id), param="history")
    fields = sdk_config.asked(question.config)
    told = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True, **VERBOSE}
    question.document |= fields | told | {"model": entry.instance_id}
    with caller.counted(endpoint, stream=True) as (record, _):
        record.model_id = entry.id
        if caller.view.services.settings.logging.prompts:
            log_prompt(record, question.document)
        await Answering(caller, channel, question, one, record).run()


class Answering:
    """One prediction under way."""

    def __init__(self, caller: Caller, channel: Channel, question: Question, one: Loaded, record: Record) -> None:
        self._services = caller.view.services
        self._loopback = caller.view.is_local(caller.client)
        self._channel = channel
        self._question = question
        self._one = one
        self._record = record
        self._watch = Watch(Patience.of(self._services.settings.server, pulse=False))
        self._prediction = Prediction(_call_id, sdk_config.tags(question.config))
        self._began = time.perf_counter()

    async def run(self) -> None:
        """Answer, to the last packet. Raises what goes wrong."""
        cancelled = False
        self._channel.when_stopped(lambda: self._watch.end(Cancelled("cancelled")))
        try:
            with self._services.drain.counting(self._watch):
                async with self._watch, AsyncExitStack() as stack:
                    if self._channel.stopped:
                        self._watch.end(Cancelled("cancelled"))
                    answer = await self._ask(stack)
                    self._record.leased(answer.lease)
                    await self._pump(answer)
        except Cancelled:
            cancelled = True
        finally:
            self._record.used(self._prediction.tokens)
        await self._channel.send(self._last(cancelled))

    async def _ask(self, stack: AsyncExitStack) -> Answer:
        while True:
            body = Body(self._question.document, loopback=self._loopback)
            call = Call(self._one.instance.entry, Task.GENERATE, self._question.path, body)
            try:
                return await upstream.ask(stack, self._services, call, self._watch)
            except ContextLengthExceeded as refusal:
                if not self._question.shorten(refusal):
                    raise
                await stack.aclose()

    async def _pump(self, answer: Answer) -> None:
        splitter, prediction = Splitter(), self._prediction
        while chunk := await answer.some():
            for event in splitter.feed(chunk):
                for packet in prediction.take(event.data):
                    if prediction.text and self._record.first_token_seconds is None:
                        self._record.first_token()
                    self._watch.phase(Phase.CLIENT)
                    await self._channel.send(packet)
            self._watch.phase(Phase.NEXT_BYTE)
        if not prediction.complete:
            raise BackendFailed(f"The model '{answer.call.entry.id}' broke off its answer.")

    def _last(self, cancelled: bool) -> dict[str, object]:
        stats = self._prediction.stats(
            first_token_seconds=self._record.first_token_seconds,
            seconds=time.perf_counter() - self._began,
            cancelled=cancelled,
        )
        return {
            "type": "success",
            "stats": stats,
            "modelInfo": self._one.info,
            "loadModelConfig": self._one.config,
            "predictionConfig": sdk_config.written(self._question.config),
        }


def _call_id() -> str:
    """LM Studio calls a call of a tool by nine digits."""
    return str(100_000_000 + secrets.randbelow(900_000_000))


CHANNELS: Mapping[str, Streaming] = {"predict": _predict, "completeRawText": _complete}
