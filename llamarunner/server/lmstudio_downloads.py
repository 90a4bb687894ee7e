"""LM Studio's downloads: jobs that bring models into the library, from Hugging Face or by names of its registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.typedefs import Handler

from llamarunner.dialects.lmstudio.errors import DownloadImpossible, InvalidValue, JobNotFound, UnknownModel
from llamarunner.dialects.lmstudio.managing import DownloadRequest, DownloadStarted, DownloadStatus, without_nothing
from llamarunner.dialects.ollama import names
from llamarunner.errors import ModelNotFound
from llamarunner.library import Job, JobState, NotOffered, PullFailed
from llamarunner.server.library_api import check_shown
from llamarunner.server.lmstudio_asked import answer, read
from llamarunner.server.services import CLIENT, VIEW, View

HUB = "hf.co"
LINK = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repository>[^/?#:]+/[^/?#:]+)/?", re.IGNORECASE)


async def download(request: web.Request) -> web.StreamResponse:
    """Begin to bring a model here, and answer at once; a model that is here already is told so.

    `model` is a link to a repository of Hugging Face, a name of Ollama's library, or `owner/repository` of either.
    """
    asked = await read(request, DownloadRequest)
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    places = [_written_out(place) for place in _places(asked)]
    for place in places:
        check_shown(view, place)
        if await _is_here(view, place):
            started = DownloadStarted(None, "already_downloaded")
            break
    else:
        job = await _begin(view, asked.model, places)
        started = DownloadStarted(job.id, "downloading", job.total_bytes, moment(job.started_at))
    return await answer(request, without_nothing(asdict(started)))


async def download_status(request: web.Request) -> web.StreamResponse:
    """Say how far a download is; jobs are remembered for a day after their end."""
    job = request.app[VIEW].services.library.jobs.find(request.match_info["job_id"])
    if job is None:
        raise JobNotFound(request.match_info["job_id"])
    return await answer(request, without_nothing(asdict(_status(job))))


async def _is_here(view: View, place: str) -> bool:
    """Tell whether a model is in the library, or known by that name from elsewhere. Raises InvalidRequest."""
    if await view.services.library.has(place):
        return True
    try:
        view.find(place.removeprefix(f"{HUB}/").removesuffix(f":{names.TAG}"))
    except ModelNotFound:
        return False
    return True


async def _begin(view: View, name: str, places: list[str]) -> Job:
    """Begin with the first place that has the model. Raises UnknownModel, DownloadImpossible, ServiceUnavailable."""
    library = view.services.library
    for place in places:
        if job := library.jobs.under_way(place):
            return job
        try:
            return library.jobs.begin(place, await library.weigh(place))
        except NotOffered:
            continue
        except PullFailed as error:
            raise DownloadImpossible(error.message) from None
    raise UnknownModel(name)


def _places(asked: DownloadRequest) -> Iterator[str]:
    """Where the model may be, as names of the library. Raises InvalidValue."""
    if link := LINK.fullmatch(asked.model):
        yield f"{HUB}/{link['repository']}:{asked.quantization or names.TAG}"
    elif "://" in asked.model:
        raise InvalidValue("'model' must be a link like https://huggingface.co/owner/repository.", param="model")
    elif asked.quantization:
        raise InvalidValue("'quantization' goes together with a link to Hugging Face only.", param="quantization")
    else:
        yield asked.model
        if asked.model.count("/") == 1:
            yield f"{HUB}/{asked.model}"


def _written_out(place: str) -> str:
    """Spell a name as all who mean the same would; what is no name stays, for the library to refuse."""
    parsed = names.parse(place)
    return parsed.short if parsed else place


def _status(job: Job) -> DownloadStatus:
    running = job.state is JobState.DOWNLOADING
    ends = job.ends_at() if running else None
    return DownloadStatus(
        job_id=job.id,
        status=job.state.value,
        bytes_per_second=round(job.bytes_per_second(), 1) if running else None,
        estimated_completion=None if ends is None else moment(ends),
        completed_at=moment(job.ended_at) if job.ended_at and job.state is JobState.COMPLETED else None,
        total_size_bytes=job.total_bytes,
        downloaded_bytes=job.done_bytes,
        started_at=moment(job.started_at),
        error=job.error.message if job.error else None,
    )


def moment(at: float) -> str:
    """Unix time as LM Studio writes it: 2025-10-03T15:33:23.496Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/api/v1/models/download"): download,
    ("GET", "/api/v1/models/download/status/{job_id}"): download_status,
}
