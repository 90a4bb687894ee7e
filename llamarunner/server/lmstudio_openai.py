"""OpenAI's and Anthropic's paths as LM Studio serves them: its ways to find a model, and its words for what is wrong.

The answers pass as the model gives them, and so does a request whose model has its own name: llama.cpp knows what LM
Studio knows, such as `max_tokens: -1`, `reasoning_effort`, `repeat_penalty` and the role `developer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.dialects.lmstudio.errors import ON_V1, FieldRequired, WrongFormat
from llamarunner.dialects.openai import OPENAI
from llamarunner.server import anthropic_api, openai_api
from llamarunner.server.calls import call_of
from llamarunner.server.lmstudio_resolve import resolve_for_lmstudio
from llamarunner.server.openai_api import Ask, Asked, asking
from llamarunner.server.record import RECORD
from llamarunner.server.services import VIEW
from llamarunner.server.upstream import Call

CHAT = "/v1/chat/completions"
FORMATS = ("json_object", "json_schema", "text")


def called(request: web.Request, path: str, ask: Ask, asked: Asked) -> Call:
    """Make the call of the model that a request means; `path` is the process's.

    Raises InvalidRequest that names the field, or as `resolve_for_lmstudio`.
    """
    view = request.app[VIEW]
    check(path, asked[1])
    found = resolve_for_lmstudio(view, asked[1], ask.task)
    return call_of(view, request[RECORD], path, found, asked)


def check(path: str, document: Mapping[str, object]) -> None:
    """Refuse what LM Studio refuses, in its words. Raises FieldRequired or WrongFormat."""
    if path == CHAT and document.get("messages") is None:
        raise FieldRequired("messages")
    form = document.get("response_format")
    if form is not None and not (isinstance(form, dict) and form.get("type") in FORMATS):
        raise WrongFormat


def _handlers() -> dict[str, Handler]:
    asks = openai_api.PATHS | anthropic_api.PATHS
    return {
        path: asking(path, replace(ask, dialect=ON_V1) if ask.dialect is OPENAI else ask, called)
        for path, ask in asks.items()
    }


ROUTES: dict[tuple[str, str], Handler] = {("POST", path): handler for path, handler in _handlers().items()} | {
    ("POST", f"/v1{path}"): handler for path, handler in _handlers().items() if path.startswith("/v1/")
}
