"""What all paths of LM Studio's own API need: a strict body, and an answer."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from llamarunner.dialects import strict_json
from llamarunner.dialects.lmstudio import strict
from llamarunner.dialects.lmstudio.errors import MEDIA, NATIVE
from llamarunner.server import body, relay
from llamarunner.server.record import RECORD
from llamarunner.server.services import VIEW

B = TypeVar("B", bound=BaseModel)


async def read(request: web.Request, kind: type[B]) -> B:
    """Read the strict body of a request. Raises InvalidRequest, PayloadTooLarge, UnsupportedMedia or RequestTimeout."""
    request[RECORD].dialect = NATIVE.name
    raw, document = await body.read_object(request, request.app[VIEW].services.settings.server)
    body.check_bounds(document)
    return strict.validated(kind, raw)


async def answer(request: web.Request, document: object) -> web.StreamResponse:
    return await relay.whole(request, strict_json.dumps(document), MEDIA, request.app[VIEW].services)
