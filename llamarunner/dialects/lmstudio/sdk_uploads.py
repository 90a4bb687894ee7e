"""Files that clients upload, which come as base64: what kind of file one is, and its data URL."""

from __future__ import annotations

import binascii
import codecs
from base64 import b64decode
from dataclasses import dataclass

from llamarunner.errors import InvalidRequest

HEAD = 4096  # bytes by which a file is judged
_IMAGES = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"))


@dataclass(frozen=True, slots=True)
class Upload:
    """One file; `content` stays in base64, in which models get images."""

    kind: str  # as the SDKs call it: image, text/plain, application/pdf or unknown
    media: str
    content: str
    size: int  # bytes of the file

    @property
    def url(self) -> str:
        return f"data:{self.media};base64,{self.content}"


def upload(content: str) -> Upload:
    """Judge a file by its first bytes. Raises InvalidRequest for what is no base64."""
    try:
        data = b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("'contentBase64' must be base64.", param="contentBase64") from None
    kind, media = _judged(data[:HEAD])
    return Upload(kind, media, content, len(data))


def _judged(head: bytes) -> tuple[str, str]:
    for mark, name in _IMAGES:
        if head.startswith(mark):
            return "image", f"image/{name}"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image", "image/webp"
    if head.startswith(b"%PDF-"):
        return "application/pdf", "application/pdf"
    if head and b"\0" not in head:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut
        except UnicodeDecodeError:
            return "unknown", "application/octet-stream"
        return "text/plain", "text/plain"
    return "unknown", "application/octet-stream"
