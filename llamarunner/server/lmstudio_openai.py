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
from llamarunner.fleet.lease import AS_IT_IS, Manner
from llamarunner.server import anthropic_api, openai_api
from llamarunner.server.calls import call_of
from llamarunner.server.lmstudio_resolve import resolve_for_lmstudio
from llamarunner.server.openai_api import Ask, Asked, asking
from llamarunner.server.record import RECORD
from llamarunner.server.services import CLIENT, VIEW
from llamarunner.server.upstream import Call

CHAT = "/v1/chat/completions"
TIMED = (CHAT, "/v1/completions", "/v1/embeddings")  # elsewhere a `ttl` has no effect
MOST_TTL = 365 * 86_400  # seconds, as in the settings
FORMATS = ("json_object", "json_schema", "text")


def called(request: web.Request, path: str, ask: Ask, asked: Asked) -> Call:
    """Make the call of the model that a request means; `path` is the process's.

    Raises InvalidRequest that names the field, or as `resolve_for_lmstudio`.
    """
    view, document = request.app[VIEW], asked[1]
    found = resolve_for_lmstudio(view, document, ask.task)
    check(path, document)
    call = call_of(view, request[RECORD], path, found, asked)
    if path not in TIMED or "ttl" not in document or not view.may_manage(request[CLIENT]):
        return call
    return replace(call, manner=manner_of(document))


def manner_of(document: Mapping[str, object]) -> Manner:
    """How a request wants its model to be run: `ttl` are the seconds of idleness, and count only if it has it loaded.

    What is no such number is passed over, as LM Studio does.
    """
    ttl = document["ttl"]
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= MOST_TTL:
        return AS_IT_IS
    return Manner(first_ttl=float(ttl))


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
