"""Images that a chat names by URL: fetched through the outbound guard if the owner wants it, else refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from llamarunner.dialects.images import RemoteImage, remote_images
from llamarunner.errors import InvalidRequest
from llamarunner.outbound import Answer, Ask, Denied, Outbound, Unreachable

MAX_IMAGES = 8  # fetched for one request
MAX_BYTES = 10_000_000  # of one image
SECONDS = 10.0
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]+")


async def inline(document: Mapping[str, object], outbound: Outbound, *, loopback: bool) -> None:
    """Put remote images into the document itself.

    `loopback` is whether they may come from this machine. Raises InvalidRequest that names the field.
    """
    images = remote_images(document)
    if not images:
        return
    if not outbound.settings.fetch_images:
        raise _wrong(
            images[0],
            "is not fetched; send the image itself as a data URL (data:image/png;base64,…). The owner can allow "
            "fetching with outbound.fetch_images",
        )
    if len(images) > MAX_IMAGES:
        raise _wrong(images[MAX_IMAGES], f"is one image too many; at most {MAX_IMAGES} are fetched for a request")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_fetch(image, outbound, loopback)) for image in images]
    for image, task in zip(images, tasks, strict=True):
        result = task.result()
        if isinstance(result, InvalidRequest):
            raise result
        image.inline(*result)


async def _fetch(image: RemoteImage, outbound: Outbound, loopback: bool) -> tuple[str, bytes] | InvalidRequest:
    """Fetch an image; its media type and bytes, or what is wrong with it."""
    try:
        answer = await outbound.request(Ask(image.url, SECONDS, MAX_BYTES, loopback=loopback))
    except (Denied, Unreachable) as error:
        return _wrong(image, f"cannot be fetched: {error.message[:1].lower()}{error.message[1:].rstrip('.')}")
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().casefold()
    if fault := _fault(answer, media_type):
        return _wrong(image, fault)
    return media_type, answer.body


def _fault(answer: Answer, media_type: str) -> str | None:
    if answer.status != 200:
        return f"cannot be fetched: its server answered {answer.status}, and redirects are not followed"
    if not _IMAGE_TYPE.fullmatch(media_type):
        return "is no image by its Content-Type"
    if "Content-Encoding" in answer.headers:
        return "is compressed by its server, which is not undone here"
    if not answer.whole:
        return f"is larger than {MAX_BYTES // 1_000_000} MB, or did not arrive within {SECONDS:g} seconds"
    return None


def _wrong(image: RemoteImage, fault: str) -> InvalidRequest:
    return InvalidRequest(f"'{image.param}' {fault}.", param=image.param)
