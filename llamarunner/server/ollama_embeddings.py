"""Ollama's `/api/embed`, and the older `/api/embeddings`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.catalog import ModelEntry
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.llama_cpp import ContextLengthExceeded
from llamarunner.dialects.ollama import presets
from llamarunner.dialects.ollama.errors import InputTooLong, ModelMissing
from llamarunner.dialects.ollama.requests import EmbeddingRequest, EmbedRequest
from llamarunner.dialects.usage import Usage
from llamarunner.errors import BackendFailed, InvalidRequest
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.server.ollama_asked import answer, ask_whole, context_of, find, hold, manner_of, not_found, read
from llamarunner.server.record import RECORD, log_prompt
from llamarunner.server.resolve import serves
from llamarunner.server.services import VIEW, Services
from llamarunner.server.upstream import Body, Call

PATH = "/v1/embeddings"
SPECIAL = 2  # tokens at the ends of a text, at most
BATCH = re.compile(r"batch size: (\d+)")

Vector = list[float]


async def embed(request: web.Request) -> web.StreamResponse:
    """Turn texts into vectors of length one, in their order."""
    began = time.monotonic_ns()
    asked = await read(request, EmbedRequest)
    texts = _texts(asked.input)
    if not asked.model:
        raise ModelMissing(not_found(""))
    entry = _find(request, asked.model)
    asked = presets.with_options(asked, entry.preset)
    manner = manner_of(request, entry, Task.EMBED, asked.options, asked.keep_alive)
    if not texts:
        await hold(request, entry, Task.EMBED, manner)
        return await answer(request, {"model": asked.model, "embeddings": []})
    vectors, tokens = await _vectors(request, entry, manner, texts, asked.truncate)
    record = request[RECORD]
    figures = {
        "total_duration": time.monotonic_ns() - began,
        "load_duration": int(((record.queue_seconds or 0) + (record.load_seconds or 0)) * 1e9),
        "prompt_eval_count": tokens,
    }
    cut = [_cut(vector, asked.dimensions) for vector in vectors]
    told = {key: value for key, value in figures.items() if value}
    return await answer(request, {"model": asked.model, "embeddings": cut, **told})


async def embeddings(request: web.Request) -> web.StreamResponse:
    """Turn one text into a vector, as older clients ask for it."""
    asked = await read(request, EmbeddingRequest)
    if not asked.model:
        raise InvalidRequest("model is required", param="model")
    entry = _find(request, asked.model)
    asked = presets.with_options(asked, entry.preset)
    manner = manner_of(request, entry, Task.EMBED, asked.options, asked.keep_alive)
    if not asked.prompt:
        await hold(request, entry, Task.EMBED, manner)
        return await answer(request, {"embedding": []})
    vectors, _ = await _vectors(request, entry, manner, [asked.prompt], truncate=True)
    return await answer(request, {"embedding": vectors[0]})


async def _vectors(
    request: web.Request, entry: ModelEntry, manner: Manner, texts: Sequence[str], truncate: bool
) -> tuple[list[Vector], int]:
    """Embed texts, cut to what the model takes if that is wanted; tells how many tokens they were."""
    view, record = request.app[VIEW], request[RECORD]
    services = view.services
    record.model_id = entry.id
    if services.settings.logging.prompts:
        log_prompt(record, {"input": list(texts)})
    call = _call(entry, manner, PATH, {"model": entry.id, "input": list(texts)})
    try:
        body = await ask_whole(services, call, record)
    except ContextLengthExceeded as refusal:
        if not truncate:
            raise InputTooLong from None
        most = _most_tokens(refusal, context_of(view, entry, Task.EMBED, manner)) - SPECIAL
        shorter = [await _shortened(services, entry, manner, text, most) for text in texts]
        body = await ask_whole(services, _call(entry, manner, PATH, {"model": entry.id, "input": shorter}), record)
    document = event_of(body.decode(errors="replace"))
    tokens = (document.get("usage") or {}).get("prompt_tokens") or 0
    record.used(Usage(prompt=tokens))
    return _read(document, len(texts)), tokens


async def _shortened(services: Services, entry: ModelEntry, manner: Manner, text: str, most: int) -> str:
    """Cut a text to so many tokens."""
    body = await ask_whole(services, _call(entry, manner, "/tokenize", {"content": text}))
    tokens = event_of(body.decode(errors="replace")).get("tokens") or []
    if len(tokens) <= most:
        return text
    body = await ask_whole(services, _call(entry, manner, "/detokenize", {"tokens": tokens[: max(1, most)]}))
    return str(event_of(body.decode(errors="replace")).get("content", ""))


def _texts(given: object) -> list[str]:
    if isinstance(given, str) or given is None:
        return [given] if given else []
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise InvalidRequest("invalid input type", param="input")
    return given


def _find(request: web.Request, name: str) -> ModelEntry:
    entry = find(request.app[VIEW], name, lambda name: f'model "{name}" not found, try pulling it first')
    if not serves(entry, Task.EMBED):
        raise InvalidRequest(f'"{name}" does not support embeddings', param="model")
    return entry


def _call(entry: ModelEntry, manner: Manner, path: str, document: dict[str, Any]) -> Call:
    return Call(entry, Task.EMBED, path, Body(document), manner)


def _most_tokens(refusal: ContextLengthExceeded, context: int) -> int:
    """How many tokens one text may have, by what llama.cpp refused."""
    told = refusal.details.get("n_ctx")
    batch = BATCH.search(refusal.message)
    known = [told if isinstance(told, int) and told > 0 else context, *([int(batch[1])] if batch else [])]
    return min(known)


def _read(document: dict[str, Any], count: int) -> list[Vector]:
    data = document.get("data") or []
    if len(data) != count:
        raise BackendFailed("The model's process did not embed every text.")
    return [one["embedding"] for one in sorted(data, key=lambda one: one["index"])]


def _cut(vector: Vector, dimensions: int) -> Vector:
    if not 0 < dimensions < len(vector):
        return vector
    short = vector[:dimensions]
    length = math.sqrt(math.fsum(one * one for one in short)) or 1.0
    return [one / length for one in short]


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/api/embed"): embed,
    ("POST", "/api/embeddings"): embeddings,
}
