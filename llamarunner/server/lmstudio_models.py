"""LM Studio's REST API about models: what there is, in its versions 1 and 0, and loading and unloading.

Models that turn speech into text are not told: they are neither LLMs nor embedding models.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.catalog import ModelEntry
from llamarunner.dialects.lmstudio import described
from llamarunner.dialects.lmstudio.errors import V0, InvalidValue, UnknownModel
from llamarunner.dialects.lmstudio.managing import (
    LoadRequest,
    ModelLoaded,
    ModelUnloaded,
    UnloadRequest,
    without_nothing,
)
from llamarunner.server import lmstudio_loading as loading
from llamarunner.server.lmstudio_asked import answer, read
from llamarunner.server.lmstudio_resolve import find
from llamarunner.server.record import RECORD
from llamarunner.server.services import CLIENT, VIEW, View


async def list_models(request: web.Request) -> web.StreamResponse:
    """List the models, each with its loaded instances."""
    view = request.app[VIEW]
    return await answer(request, {"models": await listed(view)})


async def load(request: web.Request) -> web.StreamResponse:
    """Load a new instance of a model, beside those that run; answer when it is ready.

    It stays until it is unloaded: neither idleness nor a model that a request wants takes its place.
    """
    asked = await read(request, LoadRequest)
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    entry = find(view, asked.model)
    if not described.is_told(entry):
        raise InvalidValue(f"The model '{entry.id}' is neither an LLM nor an embedding model.", param="model")
    request[RECORD].model_id = entry.id
    one = await loading.load(view, entry, loading.overrides_of(view, entry, asked))
    facts = described.model(entry)
    loaded = ModelLoaded(
        type=facts.type,
        instance_id=one.entry.instance_id,
        load_time_seconds=round(one.seconds, 3),
        status="loaded",
        load_config=described.v1_load_config(facts, one.config) if asked.echo_load_config else None,
    )
    return await answer(request, without_nothing(asdict(loaded)))


async def unload(request: web.Request) -> web.StreamResponse:
    """Unload an instance when its running answers are finished; answer when it is gone."""
    asked = await read(request, UnloadRequest)
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    entry = view.find_instance(asked.instance_id)
    if entry is None:
        raise UnknownModel(asked.instance_id)
    request[RECORD].model_id = entry.id
    await view.services.supervisor.unload(entry)
    return await answer(request, asdict(ModelUnloaded(asked.instance_id)))


async def list_v0(request: web.Request) -> web.StreamResponse:
    """List the models and their further instances, each with its state."""
    request[RECORD].dialect = V0.name
    view = request.app[VIEW]
    items = [item for entry in told(view) for item in await _items(view, entry)]
    return await answer(request, {"data": items, "object": "list"})


async def show_v0(request: web.Request) -> web.StreamResponse:
    """Describe one model, or one instance of it."""
    request[RECORD].dialect = V0.name
    view = request.app[VIEW]
    name = request.match_info["id"]
    entry = find(view, name)
    if not described.is_told(entry):
        raise UnknownModel(name, tuple(one.id for one in told(view)))
    return await answer(request, await _item(view, entry))


def told(view: View) -> list[ModelEntry]:
    """The models of this door that LM Studio could have too."""
    return [entry for entry in view.entries if described.is_told(entry)]


async def instances(view: View, entry: ModelEntry) -> list[described.Instance]:
    """The loaded instances of a model, and how each runs."""
    return [
        described.Instance(one.entry.instance_id, await loading.config_of(view.services, one))
        for one in loading.ready(view, entry)
    ]


async def listed(view: View) -> list[described.Object]:
    """The models of this door as version 1 tells them."""
    return [await _listed(view, entry) for entry in told(view)]


async def _listed(view: View, entry: ModelEntry) -> described.Object:
    return described.v1_model(described.model(entry), await instances(view, entry))


async def _items(view: View, entry: ModelEntry) -> list[described.Object]:
    numbers = {1, *view.services.supervisor.instances(entry, leaving=True)}
    return [await _item(view, replace(entry, instance=number)) for number in sorted(numbers)]


async def _item(view: View, entry: ModelEntry) -> described.Object:
    facts = described.model(entry)
    for one in loading.ready(view, entry):
        if one.entry.instance == entry.instance:
            config = await loading.config_of(view.services, one)
            return described.v0_model(facts, entry.instance_id, "loaded", config.context_length)
    state: described.State = "loading" if loading.is_loading(view, entry) else "not-loaded"
    return described.v0_model(facts, entry.instance_id, state)


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/api/v1/models"): list_models,
    ("POST", "/api/v1/models/load"): load,
    ("POST", "/api/v1/models/unload"): unload,
    ("GET", "/api/v0/models"): list_v0,
    ("GET", "/api/v0/models/{id:.+}"): show_v0,
}
