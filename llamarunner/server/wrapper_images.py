"""Images of this machine that a client names by path, below the folders that the owner allows, and nothing else.

A path outside of them is refused the same way whether there is something or not. Links are followed first and the
check is made of where they lead; what is no ordinary file with the first bytes of an image is not read.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from llamarunner.config import WrapperSettings
from llamarunner.dialects.lmstudio.errors import InvalidValue
from llamarunner.errors import Forbidden, PayloadTooLarge

PARAM = "image_path"
MB = 1_000_000
LONGEST_PATH = 4096
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_HEADS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


def data_url(path: str, settings: WrapperSettings) -> str:
    """Read an image as a data URL; blocks for as long as the disk does.

    Raises Forbidden for what the owner does not allow, InvalidValue for what is no image, or PayloadTooLarge.
    """
    most = settings.image_size_mb * MB
    raw = _read(_allowed(path, settings.image_folders), most)
    return f"data:{_media_type(raw)};base64,{base64.b64encode(raw).decode()}"


def _allowed(path: str, folders: Sequence[Path]) -> str:
    """Find the file that a path leads to. What is outside by its mere name is not even looked for."""
    if not folders:
        raise Forbidden(
            "Images of this machine are not read; send a data URL (data:image/png;base64,…). The owner can allow "
            "folders with wrapper.image_folders."
        )
    if "\0" in path or len(path) > LONGEST_PATH:
        raise InvalidValue(f"'{PARAM}' is no path that a file can have.", param=PARAM)
    if not os.path.isabs(path):
        raise InvalidValue(f"'{PARAM}' must be a data URL or a whole path, from the root on.", param=PARAM)
    plain = os.path.normpath(path)
    real_folders = [os.path.realpath(folder) for folder in folders]
    if not any(_is_below(plain, folder) for folder in (*map(os.path.abspath, folders), *real_folders)):
        raise _outside()
    real = os.path.realpath(path)
    if not any(_is_below(real, folder) for folder in real_folders):
        raise _outside()
    return real


def _read(real: str, most: int) -> bytes:
    try:
        if not stat.S_ISREG(os.lstat(real).st_mode):  # to open a device may do something
            raise _no_file()
        descriptor = os.open(real, os.O_RDONLY | _FLAGS)
        with open(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise _no_file()
            if os.path.realpath(real) != real or not os.path.samestat(state, os.lstat(real)):
                raise _outside()  # something on the way was changed meanwhile
            raw = file.read(most + 1)
    except (OSError, ValueError):
        raise _no_file() from None
    if len(raw) > most:
        raise _too_large(most)
    return raw


def _is_below(path: str, folder: str) -> bool:
    try:
        return os.path.commonpath((os.path.normcase(path), os.path.normcase(folder))) == os.path.normcase(folder)
    except ValueError:  # of two drives
        return False


def _media_type(raw: bytes) -> str:
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    for head, media_type in _HEADS:
        if raw.startswith(head):
            return media_type
    raise InvalidValue(f"'{PARAM}' leads to no image: PNG, JPEG, GIF, WebP or BMP.", param=PARAM)


def _outside() -> Forbidden:
    return Forbidden(f"'{PARAM}' is not below a folder that the owner allows with wrapper.image_folders.", param=PARAM)


def _no_file() -> InvalidValue:
    return InvalidValue(f"'{PARAM}' leads to no file that can be read.", param=PARAM)


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The image is larger than {most // MB} MB.", param=PARAM)
