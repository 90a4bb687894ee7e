"""Ollama's own paths: chats and completions here, and the table of all of them.

A request without anything to answer loads its model, or with `keep_alive: 0` unloads it as soon as it is idle.
"""

from __future__ import annotations

import time
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.catalog import Capability, ModelEntry
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.ollama import asking, names, presets
from llamarunner.dialects.ollama.answers import CHAT, GENERATE, Shape, loaded
from llamarunner.dialects.ollama.errors import ModelMissing
from llamarunner.dialects.ollama.requests import ChatRequest, GenerateRequest, Inference
from llamarunner.errors import InvalidRequest
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.server import ollama_embeddings, ollama_models
from llamarunner.server.ollama_answer import Question, respond
from llamarunner.server.ollama_asked import answer, ask_whole, context_of, find, hold, manner_of, not_found, read
from llamarunner.server.record import RECORD
from llamarunner.server.resolve import serves
from llamarunner.server.services import CLIENT, VIEW
from llamarunner.server.upstream import Body, Call

A = TypeVar("A", bound=Inference)

CHAT_PATH, COMPLETION_PATH, INFILL_PATH = "/v1/chat/completions", "/v1/completions", "/infill"


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer a chat."""
    view = request.app[VIEW]
    asked = await read(request, ChatRequest)
    if not asked.model:
        raise InvalidRequest("model is required", param="model")
    entry = find(view, asked.model)
    if not asked.messages and asked.keep_alive == 0:
        return await unload(request, entry, asked.model, CHAT)
    asked = _thinking(entry, asked)
    _check(entry, asked, "chat")
    if asked.tools and Capability.TOOLS not in entry.capabilities:
        raise _lacks(asked.model, "tools")
    asked = presets.chat(asked, entry.preset)
    manner = manner_of(request, entry, Task.GENERATE, asked.options, asked.keep_alive)
    document = asking.chat(asked, context_of(view, entry, Task.GENERATE, manner))
    if not asked.messages:
        return await load(request, entry, asked.model, CHAT, manner)
    request[RECORD].model_id = entry.id
    question = Question(
        *(entry, asked.model, CHAT_PATH, document, manner, CHAT, asked.stream, asked.top_logprobs),
        truncate=asked.truncate,
    )
    return await respond(request, question)


async def generate(request: web.Request) -> web.StreamResponse:
    """Answer a prompt: in the model's template, as it stands, or as what surrounds a gap."""
    view = request.app[VIEW]
    asked = await read(request, GenerateRequest)
    if not asked.model:
        raise ModelMissing(not_found(""))
    entry = find(view, asked.model)
    if not asked.prompt and asked.keep_alive == 0:
        return await unload(request, entry, asked.model, GENERATE)
    if asked.raw and (asked.template or asked.system or asked.context):
        raise InvalidRequest("raw mode does not support template, system, or context")
    if asked.template:
        raise InvalidRequest("a template cannot be given here: models keep their own; use raw", param="template")
    asked = _thinking(entry, asked)
    _check(entry, asked, "generate")
    if asked.suffix and Capability.FIM not in entry.capabilities:
        raise _lacks(asked.model, "insert")
    asked = presets.generate(asked, entry.preset)
    manner = manner_of(request, entry, Task.GENERATE, asked.options, asked.keep_alive)
    request[RECORD].model_id = entry.id
    question = _question(asked, entry, manner, context_of(view, entry, Task.GENERATE, manner))
    if not asked.prompt and not asked.suffix:
        return await load(request, entry, asked.model, GENERATE, manner)
    if asked.context:
        await _continue(request, question, asked)
    return await respond(request, question)


def _question(asked: GenerateRequest, entry: ModelEntry, manner: Manner, tokens: int) -> Question:
    remember = None
    if asked.suffix:
        path, document = INFILL_PATH, asking.infill(asked, tokens)
    elif asked.raw or asked.context:
        path, document = COMPLETION_PATH, asking.complete(asked, asked.prompt, tokens)
    else:
        path, document = CHAT_PATH, asking.generate(asked, tokens)
    if path != INFILL_PATH and not asked.raw and not asked.images:
        remember = asked.context
    return Question(
        *(entry, asked.model, path, document, manner, GENERATE, asked.stream, asked.top_logprobs), remember=remember
    )


async def _continue(request: web.Request, question: Question, asked: GenerateRequest) -> None:
    """Put the prompt into the model's template, behind the tokens of what was said before."""
    if asked.think or asked.images:
        raise InvalidRequest("context does not go together with think or images", param="context")
    services = request.app[VIEW].services
    messages = asking.generate(asked, 0)["messages"]
    document = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
    call = Call(question.entry, Task.GENERATE, "/apply-template", Body(document), question.manner)
    rendered = event_of((await ask_whole(services, call)).decode(errors="replace"))
    question.document["prompt"] = [*asked.context, str(rendered.get("prompt", ""))]


async def load(request: web.Request, entry: ModelEntry, name: str, shape: Shape, manner: Manner) -> web.StreamResponse:
    """Load a model; answer when it is loaded."""
    await hold(request, entry, Task.GENERATE, manner)
    return await answer(request, loaded(name, shape, "load", time.time_ns()))


async def unload(request: web.Request, entry: ModelEntry, name: str, shape: Shape) -> web.StreamResponse:
    """Unload a model as soon as it is idle; answer at once."""
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    request[RECORD].model_id = entry.id
    view.services.supervisor.let_go(view.meant(entry, name))
    return await answer(request, loaded(name, shape, "unload", time.time_ns()))


def _thinking(entry: ModelEntry, asked: A) -> A:
    """The most that gpt-oss can do is called otherwise."""
    most = asked.think == "max" and entry.architecture == "gpt-oss"
    return asked.model_copy(update={"think": "high"}) if most else asked


def _check(entry: ModelEntry, asked: Inference, what: str) -> None:
    if not serves(entry, Task.GENERATE):
        raise InvalidRequest(f'"{asked.model}" does not support {what}', param="model")
    if asked.think and Capability.THINKING not in entry.capabilities:
        raise InvalidRequest(f'"{asked.model}" does not support thinking', param="think")


def _lacks(model: str, what: str) -> InvalidRequest:
    name = names.parse(model)
    return InvalidRequest(f"{name.full if name else model} does not support {what}")


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/api/chat"): chat,
    ("POST", "/api/generate"): generate,
    **ollama_embeddings.ROUTES,
    **ollama_models.ROUTES,
}
