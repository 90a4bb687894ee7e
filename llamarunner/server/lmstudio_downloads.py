"""LM Studio's downloads: jobs that bring models into the library, from Hugging Face or by names of its registry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from llamarunner.dialects.lmstudio.errors import InvalidValue, JobNotFound, UnknownModel
from llamarunner.dialects.lmstudio.managing import DownloadRequest, DownloadStarted, DownloadStatus, without_nothing
from llamarunner.dialects.ollama import names
from llamarunner.library import Job, JobState, NotOffered
from llamarunner.server.library_api import check_shown
from llamarunner.server.lmstudio_asked import answer, read
from llamarunner.server.services import CLIENT, VIEW, View

HUB = "hf.co"
HUB_HOSTS = (HUB, "huggingface.co", "www.huggingface.co")


async def download(request: web.Request) -> web.StreamResponse:
    """Begin to bring a model here, and answer at once; a model that is here already is told so.

    `model` is a link to a repository of Hugging Face, a name of Ollama's library, or `owner/repository` of either.
    """
    asked = await read(request, DownloadRequest)
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    places = list(_places(asked))
    for place in places:
        check_shown(view, place)
        if await view.services.library.has(place):
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


async def _begin(view: View, name: str, places: list[str]) -> Job:
    """Begin with the first place that has the model. Raises UnknownModel, PullFailed, ServiceUnavailable."""
    library = view.services.library
    for place in places:
        try:
            return library.jobs.begin(place, await library.weigh(place))
        except NotOffered:
            continue
    raise UnknownModel(name)


def _places(asked: DownloadRequest) -> Iterator[str]:
    """Where the model may be, as names of the library. Raises InvalidValue."""
    url = URL(asked.model) if "://" in asked.model else None
    if url is None and asked.quantization is None:
        yield asked.model
        if asked.model.count("/") == 1:
            yield f"{HUB}/{asked.model}"
        return
    if url is None:
        raise InvalidValue("'quantization' goes together with a link to Hugging Face only.", param="quantization")
    parts = [part for part in url.path.split("/") if part]
    if url.scheme not in ("http", "https") or url.host not in HUB_HOSTS or len(parts) != 2:
        raise InvalidValue(
            "'model' must be a link such as https://huggingface.co/owner/repository, or a name.", param="model"
        )
    yield f"{HUB}/{parts[0]}/{parts[1]}:{asked.quantization or names.TAG}"


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
