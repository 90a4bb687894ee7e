"""What kind of file a client has uploaded."""

from __future__ import annotations

from base64 import b64encode

import pytest

from llamarunner.dialects.lmstudio.sdk_uploads import HEAD, upload
from llamarunner.errors import InvalidRequest


@pytest.mark.parametrize(
    ("data", "kind", "media"),
    [
        (b"\x89PNG\r\n\x1a\n...", "image", "image/png"),
        (b"\xff\xd8\xff\xe0...", "image", "image/jpeg"),
        (b"GIF89a", "image", "image/gif"),
        (b"BM....", "image", "image/bmp"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "unknown", "application/octet-stream"),
        (b"%PDF-1.7", "application/pdf", "application/pdf"),
        ("schön".encode(), "text/plain", "text/plain"),
        (b"x" * (HEAD - 1) + "ü".encode(), "text/plain", "text/plain"),
        (b"\xc3(", "unknown", "application/octet-stream"),
        (b"a\0b", "unknown", "application/octet-stream"),
        (b"", "unknown", "application/octet-stream"),
    ],
)
def test_a_file_is_what_its_first_bytes_say(data: bytes, kind: str, media: str) -> None:
    content = b64encode(data).decode()
    one = upload(content)
    assert (one.kind, one.media, one.size) == (kind, media, len(data))
    assert one.url == f"data:{media};base64,{content}"


@pytest.mark.parametrize("content", ["?", "AAA", "AA AA", "ü"])
def test_what_is_no_base64(content: str) -> None:
    with pytest.raises(InvalidRequest, match="contentBase64"):
        upload(content)
