"""Models to download, through LM Studio's sockets: those of Hugging Face, for who may manage models here.

An option is told by the name under which the library pulls it, `hf.co/owner/repository:tag`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress

from pydantic import Field

from llamarunner.dialects.lmstudio.sdk_frames import Sent, checked
from llamarunner.errors import InvalidRequest, ModelNotFound, ShuttingDown
from llamarunner.library import Line
from llamarunner.server.drain import STOPPING
from llamarunner.server.library_api import check_shown
from llamarunner.server.sdk_endpoints import Caller, Cancelled, Channel, Rpc, Streaming
from llamarunner.server.watch import Patience, Phase, Watch

MOST_RESULTS = 25
HUB = "hf.co/"
_REPOSITORY = re.compile(r"(?:https?://(?:huggingface\.co|hf\.co)/|hf\.co/)?([\w.-]+/[\w.-]+)", re.ASCII)


class Options(Sent):
    search_term: str | None = Field(None, max_length=256)
    limit: int | None = Field(None, ge=1, le=MOST_RESULTS)
    compatibility_types: list[str] | None = Field(None, max_length=32)


class Search(Sent):
    opts: Options


class Found(Sent):
    type: str
    identifier: str = Field(max_length=512)


class Ask(Sent):
    model_search_result_identifier: Found


class Download(Sent):
    download_identifier: str = Field(max_length=512)


async def _search(caller: Caller, parameter: object) -> object:
    asked = checked(Search, parameter).opts
    caller.view.check_management(caller.client)
    if asked.compatibility_types is not None and "gguf" not in asked.compatibility_types:
        return {"results": []}
    term = (asked.search_term or "").strip()
    named = _REPOSITORY.fullmatch(term)
    found = await caller.view.services.library.search(named[1] if named else term, asked.limit or MOST_RESULTS)
    return {"results": [_result(one, named[1] if named else term) for one in found]}


def _result(repository: str, term: str) -> dict[str, object]:
    exact = {"exact": True} if repository.casefold() == term.casefold() else {}
    return {"name": repository, "identifier": {"type": "hf", "identifier": repository}, **exact}


async def _options(caller: Caller, parameter: object) -> object:
    asked = checked(Ask, parameter).model_search_result_identifier
    caller.view.check_management(caller.client)
    named = _REPOSITORY.fullmatch(asked.identifier)
    if named is None:
        raise InvalidRequest("'identifier' must be that of a repository of Hugging Face.", param="identifier")
    repository = named[1]
    choices = await caller.view.services.library.choices(repository)
    free = (await caller.view.services.figures.machine()).available_bytes
    results = [
        {
            **({"quantization": one.quantization} if one.quantization else {}),
            "name": one.file,
            "sizeBytes": one.size,
            "fitEstimation": "fitWithoutGPU" if one.size <= free else "willNotFit",
            "recommended": one.usual,
            "downloadIdentifier": f"{HUB}{repository}:{one.tag}",
            "indexedModelIdentifier": repository,
            "compatibilityType": "gguf",
        }
        for one in choices
    ]
    return {"results": results}


async def _download(caller: Caller, parameter: object, channel: Channel) -> None:
    """Bring a model here and tell how far it is; who cancels leaves, and the next one goes on from there."""
    name = checked(Download, parameter).download_identifier
    view = caller.view
    view.check_management(caller.client)
    check_shown(view, name)
    watch, telling = Watch(Patience.of(view.services.settings.server, pulse=False)), _Telling()
    try:
        async with watch, aclosing(view.services.library.pull(name)) as lines:
            channel.when_stopped(lambda: watch.end(Cancelled("cancelled")))
            with view.services.drain.hosting(lambda: watch.end(ShuttingDown(STOPPING))):
                watch.phase(Phase.NEWS)
                async for line in lines:
                    for packet in telling.packets(line):
                        await channel.send(packet)
    except Cancelled:
        return
    with suppress(ModelNotFound):
        name = view.find(name).id
    await channel.send({"type": "success", "defaultIdentifier": name})


class _Telling:
    """Makes packets of the lines of a pull."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._parts: dict[str, tuple[int, int]] = {}  # by digest: bytes that are here, and all
        self._first: int | None = None  # bytes that were here before

    def packets(self, line: Line) -> list[dict[str, object]]:
        if line.get("status") == "writing manifest":
            return [{"type": "startFinalizing"}]
        digest, total, done = line.get("digest"), line.get("total"), line.get("completed", 0)
        if not isinstance(digest, str) or not isinstance(total, int) or not isinstance(done, int):
            return []
        self._parts[digest] = done, total
        here = sum(part for part, _ in self._parts.values())
        if self._first is None:
            self._first = here
        update = {
            "downloadedBytes": here,
            "totalBytes": sum(size for _, size in self._parts.values()),
            "speedBytesPerSecond": max(0, here - self._first) / max(time.monotonic() - self._began, 0.001),
        }
        return [{"type": "downloadProgress", "update": update}]


RPCS: Mapping[str, Rpc] = {"searchModels": _search, "getModelDownloadOptions": _options}
CHANNELS: Mapping[str, Streaming] = {"downloadModel": _download}
