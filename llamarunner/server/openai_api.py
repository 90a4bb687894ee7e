"""OpenAI's paths, and llama.cpp's own of the same family; answers pass as the model gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import anthropic, openai, strict_json
from llamarunner.dialects.wire import Dialect
from llamarunner.errors import InvalidRequest
from llamarunner.fleet.launch import Task
from llamarunner.server import body, models_api, relay
from llamarunner.server.calls import call_of
from llamarunner.server.record import RECORD
from llamarunner.server.resolve import resolve
from llamarunner.server.services import VIEW, View
from llamarunner.server.upstream import Call


@dataclass(frozen=True, slots=True)
class Ask:
    """What a path asks of a model; `task` None is answered by any model, whatever it is made for."""

    task: Task | None
    streams: bool = False
    dialect: Dialect = openai.OPENAI
    upstream: str | None = None  # where the model's process has it, if elsewhere


Asked = tuple[bytes | None, dict[str, object]]
Caller = Callable[[web.Request, str, Ask, Asked], Call]

PATHS: dict[str, Ask] = {
    "/v1/chat/completions": Ask(Task.GENERATE, streams=True),
    "/v1/completions": Ask(Task.GENERATE, streams=True),
    "/v1/responses/input_tokens": Ask(Task.GENERATE),
    "/v1/embeddings": Ask(Task.EMBED),
    "/v1/rerank": Ask(Task.RERANK),
    "/v1/reranking": Ask(Task.RERANK, upstream="/v1/rerank"),
    "/rerank": Ask(Task.RERANK, upstream="/v1/rerank"),
    "/infill": Ask(Task.GENERATE, streams=True),
    "/apply-template": Ask(Task.GENERATE),
    "/tokenize": Ask(None),
    "/detokenize": Ask(None),
}


def called(request: web.Request, path: str, ask: Ask, asked: Asked) -> Call:
    """Make the call of the model that a request names; `path` is the process's. Raises as `resolve` and `call_of`."""
    view = request.app[VIEW]
    return call_of(view, request[RECORD], path, resolve(view, asked[1], ask.task), asked)


def asking(path: str, ask: Ask, caller: Caller = called) -> Handler:
    """Make the handler that passes requests for a path on to the models that they name."""
    upstream_path = ask.upstream or path

    async def ask_model(request: web.Request) -> web.StreamResponse:
        """Ask a model, as OpenAI's API has it."""
        request[RECORD].dialect = ask.dialect.name
        asked = await body.read_object(request, request.app[VIEW].services.settings.server)
        stream = ask.streams and wants_stream(asked[1])
        call = caller(request, upstream_path, ask, asked)
        del asked  # many times as large as the bytes, and the answer may take long
        return await relay.forward(request, call, ask.dialect, stream)

    return ask_model


async def list_models(request: web.Request) -> web.Response:
    """List the usable models of this door and their further instances; to Anthropic's clients in their own shape."""
    view = request.app[VIEW]
    listed = [one for entry in view.entries for one in (entry, *_further(view, entry))]
    if "anthropic-version" in request.headers:
        return _json(anthropic.model_list([anthropic.model_object(one) for one in listed]))
    return _json(openai.model_list([openai.model_object(one, models_api.status_of(view, one)) for one in listed]))


async def retrieve_model(request: web.Request) -> web.Response:
    """Describe one model, found by any of its names, or an instance by its id."""
    view, name = request.app[VIEW], request.match_info["id"]
    entry = view.find(name)
    if entry.instance_id != name:
        entry = replace(entry, instance=1)
    if "anthropic-version" in request.headers:
        return _json(anthropic.model_object(entry))
    return _json(openai.model_object(entry, models_api.status_of(view, entry)))


def _further(view: View, entry: ModelEntry) -> list[ModelEntry]:
    return [one for one in view.instances(entry) if one.instance > 1]


def wants_stream(document: Mapping[str, object]) -> bool:
    """Tell whether an answer shall be streamed. Raises InvalidRequest."""
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("'stream' must be true or false.", param="stream")
    return bool(stream)


def _json(value: object) -> web.Response:
    return web.Response(body=strict_json.dumps(value), content_type="application/json")
