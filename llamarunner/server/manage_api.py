"""The house about itself."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from llamarunner.server.services import VIEW


async def health(request: web.Request) -> web.Response:
    """Say whether the server takes requests: 200 healthy, or 503 draining."""
    services = request.app[VIEW].services
    draining = services.drain.active
    state = {
        "status": "draining" if draining else "healthy",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": services.version,
        "uptime": services.uptime,
    }
    return web.json_response(state, status=503 if draining else 200)


async def ollama_greeting(request: web.Request) -> web.Response:
    """Say what Ollama says; its clients look for this very text."""
    return web.Response(text="Ollama is running")
