"""Models that LM Studio's requests load as they come: how long they stay.

`ttl`, in seconds, counts only for the request that has a model loaded, and what is no such number is passed over, as LM
Studio does. It is read where LM Studio reads it, and of those who may manage models here: others would keep the
machine's memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from llamarunner.fleet.lease import AS_IT_IS, Manner
from llamarunner.server.services import CLIENT, VIEW

LONGEST_SECONDS = 365 * 86_400
WITH_TTL = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")  # of the process; not /v1/responses


def manner_of(request: web.Request, path: str, document: Mapping[str, object]) -> Manner:
    """How a request wants its model to be run; `path` is the process's."""
    ttl = document.get("ttl")
    if path not in WITH_TTL or isinstance(ttl, bool) or not isinstance(ttl, int | float):
        return AS_IT_IS
    if not 0 < ttl <= LONGEST_SECONDS or not request.app[VIEW].may_manage(request[CLIENT]):
        return AS_IT_IS
    return Manner(first_ttl=float(ttl))
