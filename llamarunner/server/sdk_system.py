"""The server itself through LM Studio's sockets: which models are here, and who serves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

from pydantic import Field

from llamarunner.dialects.lmstudio import described
from llamarunner.dialects.lmstudio.sdk_frames import VOID, Sent, checked
from llamarunner.dialects.lmstudio.sdk_infos import Info, model_info
from llamarunner.errors import Forbidden
from llamarunner.server.sdk_endpoints import Caller, Channel, Rpc, Streaming
from llamarunner.server.sdk_models import path_of
from llamarunner.server.services import View

log = logging.getLogger("llamarunner.server")


class ByKey(Sent):
    model_key: str


class Notice(Sent):
    title: str = Field(max_length=1000)
    description: str | None = Field(None, max_length=10_000)


def _downloaded(view: View) -> list[Info]:
    told = (entry for entry in view.entries if described.is_told(entry))
    return [model_info(described.model(entry), path_of(entry)) for entry in told]


async def _list(caller: Caller, parameter: object) -> object:
    return _downloaded(caller.view)


async def _variants(caller: Caller, parameter: object) -> object:
    key = checked(ByKey, parameter).model_key.casefold()
    return [info for info in _downloaded(caller.view) if str(info["modelKey"]).casefold() == key]


async def _version(caller: Caller, parameter: object) -> object:
    return {"version": caller.view.services.version, "build": 1}


async def _info(caller: Caller, parameter: object) -> object:
    pid = os.getpid() if caller.view.may_manage(caller.client) else 0
    return {"pid": pid, "isDaemon": True, "version": caller.view.services.version}


async def _notify(caller: Caller, parameter: object) -> object:
    notice = checked(Notice, parameter)
    log.info("a client says: %s", " — ".join(part for part in (notice.title, notice.description) if part))
    return VOID


async def _flags(caller: Caller, parameter: object) -> object:
    return []


async def _refuse(caller: Caller, parameter: object) -> object:
    raise Forbidden("The server is started and stopped by its owner, not by its clients.")


async def _alive(caller: Caller, parameter: object, channel: Channel) -> None:
    """Stay open as long as the server is there."""
    channel.lasting = True
    over = asyncio.Event()
    channel.when_stopped(over.set)
    await over.wait()


RPCS: Mapping[str, Rpc] = {
    "listDownloadedModels": _list,
    "listDownloadedModelVariants": _variants,
    "version": _version,
    "info": _info,
    "notify": _notify,
    "getExperimentFlags": _flags,
    **dict.fromkeys(("startHttpServer", "stopHttpServer", "requestShutdown", "setExperimentFlag"), _refuse),
}
CHANNELS: Mapping[str, Streaming] = {"alive": _alive}
