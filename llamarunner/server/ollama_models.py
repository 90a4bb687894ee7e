"""What Ollama tells about models, about those that run, and about itself."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import strict_json
from llamarunner.dialects.ollama import described, names
from llamarunner.dialects.ollama.errors import CloudDisabled
from llamarunner.dialects.ollama.requests import ModelRequest, ShowRequest
from llamarunner.errors import InvalidRequest, ModelNotLoaded
from llamarunner.fleet.unit import Unit
from llamarunner.gguf import HEADER_BYTES, Contents, GGUFError, contents
from llamarunner.server import models_api, relay
from llamarunner.server.ollama_asked import JSON, answer, find, not_found, read
from llamarunner.server.services import VIEW, View

# The release whose API this is. Clients compare it: VS Code's wants 0.6.4 at least, and Open WebUI reads its parts as
# numbers, so it must be one of Ollama's and cannot be ours.
VERSION = "0.33.0"
FOR_EVER = 2**63 / 1e9  # seconds from now, with which Ollama says that a model stays
COPILOT = "GitHubCopilotChat/"  # shows the basename as the name of the model


async def tags(request: web.Request) -> web.StreamResponse:
    """List the models, the newest first."""
    view = request.app[VIEW]
    entries = sorted(_listed(view), key=lambda entry: -entry.created)
    await view.services.library.settle_digests(entries)
    return await answer(
        request, {"models": [described.listed(entry, view.services.library.digest(entry)) for entry in entries]}
    )


async def show(request: web.Request) -> web.StreamResponse:
    """Tell all about a model; with `verbose` also its whole vocabulary."""
    view = request.app[VIEW]
    asked = await read(request, ShowRequest)
    if not asked.named:
        raise InvalidRequest("model is required", param="model")
    entry = find(view, asked.named, _not_found_whole, remote="remote model details are")
    copilot = request.headers.get("User-Agent", "").startswith(COPILOT)
    body = await asyncio.to_thread(_shown, entry, asked, asked.named if copilot else None)
    return await relay.whole(request, body, JSON, view.services)


async def ps(request: web.Request) -> web.StreamResponse:
    """List the models that are loaded; last the one that is unloaded first."""
    view = request.app[VIEW]
    entries = [entry for entry in view.loaded if entry.format == "GGUF"]
    await view.services.library.settle_digests(entries)
    told = [await _running(view, entry) for entry in entries]
    return await answer(request, {"models": sorted(told, key=lambda one: str(one["expires_at"]), reverse=True)})


async def version(request: web.Request) -> web.StreamResponse:
    """Say which release of Ollama this speaks like."""
    return await answer(request, {"version": VERSION})


async def status(request: web.Request) -> web.StreamResponse:
    """Say that nothing is asked of Ollama's own servers."""
    return await answer(request, {"cloud": {"disabled": True, "source": "config"}})


async def recommendations(request: web.Request) -> web.StreamResponse:
    """Recommend no models."""
    return await answer(request, {"recommendations": []})


async def push(request: web.Request) -> web.StreamResponse:
    """Say that models are not published from here."""
    asked = await read(request, ModelRequest)
    if not asked.named:
        raise InvalidRequest("model is required", param="model")
    raise InvalidRequest("pushing models is not supported by this server")


def _cloud(what: str) -> Handler:
    async def refuse(request: web.Request) -> web.StreamResponse:
        """Say that Ollama's own servers are not asked."""
        raise CloudDisabled(what)

    return refuse


def _listed(view: View) -> list[ModelEntry]:
    """The models of this door that Ollama could have too."""
    return [entry for entry in view.entries if entry.format == "GGUF"]


async def _running(view: View, entry: ModelEntry) -> described.Object:
    services = view.services
    task = models_api.shown_task(view, entry)
    instance, unit = services.supervisor.instance(entry, task), services.supervisor.unit(entry, task)
    size = await services.figures.tree_bytes(models_api.pids(view, entry))
    context, share = None, 0.0
    if instance and instance.endpoint and instance.child:
        context = (await services.figures.granted(instance.endpoint)).context_length
        share = instance.child.log.gpu_share()
    expires = _expires(unit) if unit else time.time()
    return described.running(
        entry, services.library.digest(entry), described.Run(size, int(size * share), expires, context)
    )


def _expires(unit: Unit) -> float:
    """When a model is unloaded, as Unix time, if it is not used meanwhile."""
    left = models_api.seconds_left(unit)
    return time.time() + (FOR_EVER if left is None else left)


def _not_found_whole(name: str) -> str:
    parsed = names.parse(name)
    return not_found(parsed.short if parsed else name)


def _shown(entry: ModelEntry, asked: ShowRequest, basename: str | None) -> bytes:
    """All of a model as JSON; reads its file, and a large vocabulary takes a while."""
    found = _contents(entry, entry.path, asked.verbose)
    projector = _contents(entry, entry.mmproj, asked.verbose).metadata if entry.mmproj else {}
    info = described.model_info(entry, found.metadata)
    if basename:
        info["general.basename"] = basename
    preset, name = entry.preset, described.named(entry)
    template, system = preset.template or described.template(entry), asked.system or preset.system
    options = {**preset.parameters, **asked.options}
    document = {
        "modelfile": described.modelfile(name, template, system, options),
        "license": "\n".join(preset.license),
        "parameters": described.parameters_text(options),
        "template": template,
        "system": system,
        "messages": preset.messages,
        "details": described.details(entry),
        "model_info": info,
        "projector_info": dict(sorted(projector.items())),
        "tensors": [{"name": one.name, "type": one.kind, "shape": one.shape} for one in found.tensors],
        "capabilities": described.capabilities(entry),
        "modified_at": described.moment(entry.created),
    }
    optional = ("license", "parameters", "template", "system", "messages", "projector_info", "tensors")
    return strict_json.dumps({key: value for key, value in document.items() if value or key not in optional})


def _contents(entry: ModelEntry, path: Path, everything: bool) -> Contents:
    if entry.error or entry.format != "GGUF":
        raise ModelNotLoaded(f"The model '{entry.id}' cannot be shown: {entry.error or 'it is no GGUF file'}.")
    try:
        with path.open("rb") as file:
            return contents(file.read(HEADER_BYTES), everything)
    except (OSError, GGUFError):
        raise ModelNotLoaded(f"The model '{entry.id}' cannot be shown: its file cannot be read.") from None


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/api/tags"): tags,
    ("GET", "/api/ps"): ps,
    ("GET", "/api/version"): version,
    ("GET", "/api/status"): status,
    ("GET", "/api/experimental/model-recommendations"): recommendations,
    ("POST", "/api/show"): show,
    ("POST", "/api/push"): push,
    ("POST", "/api/experimental/web_search"): _cloud("web search is"),
    ("POST", "/api/experimental/web_fetch"): _cloud("web fetch is"),
    ("POST", "/api/me"): _cloud("the account is"),
    ("POST", "/api/signout"): _cloud("the account is"),
    ("DELETE", "/api/user/keys/{key}"): _cloud("the account is"),
}
