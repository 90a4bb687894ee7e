"""Images that are named by path: which are read, and which are refused."""

from __future__ import annotations

import base64
import os
import socket
import sys
from pathlib import Path

import pytest

from llamarunner.config import WrapperSettings
from llamarunner.dialects.lmstudio.errors import InvalidValue
from llamarunner.errors import Forbidden, LlamaRunnerError, PayloadTooLarge
from llamarunner.server.wrapper_images import data_url

PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "allowed" / "deep"
    inside.mkdir(parents=True)
    (inside / "one.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    return tmp_path / "allowed"


def read(path: Path | str, *folders: Path, size: int = 20) -> str:
    return data_url(str(path), WrapperSettings(image_folders=folders, image_size_mb=size))


def raised(path: Path | str, *folders: Path) -> LlamaRunnerError:
    with pytest.raises(LlamaRunnerError) as caught:
        read(path, *folders)
    return caught.value


def test_an_image_below_a_folder_is_read(folder: Path) -> None:
    wanted = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert read(folder / "deep" / "one.png", folder / "nowhere", folder) == wanted
    assert read(f"{folder}/deep/../deep/one.png", folder) == wanted


@pytest.mark.parametrize(
    ("head", "media_type"),
    [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"RIFF1234WEBPVP8", "webp"), (b"BM12", "bmp")],
    ids=["jpeg", "gif", "webp", "bmp"],
)
def test_the_type_is_told_by_the_first_bytes(folder: Path, head: bytes, media_type: str) -> None:
    (folder / "image.png").write_bytes(head)
    assert read(folder / "image.png", folder).startswith(f"data:image/{media_type};base64,")


def test_without_folders_nothing_is_read(folder: Path) -> None:
    error = raised(folder / "deep" / "one.png")
    assert isinstance(error, Forbidden)
    assert "wrapper.image_folders" in error.message


def test_what_is_outside_is_refused_whether_it_is_there_or_not(folder: Path) -> None:
    errors = [
        raised(path, folder)
        for path in (
            folder.parent / "secret.png",
            folder.parent / "missing.png",
            f"{folder}/../secret.png",
            f"{folder}-more/secret.png",
            "/etc/passwd",
            "/",
        )
    ]
    assert {type(error) for error in errors} == {Forbidden}
    assert len({error.message for error in errors}) == 1


def test_links_count_by_where_they_lead(folder: Path) -> None:
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    (folder / "in.png").symlink_to(folder / "deep" / "one.png")
    (folder.parent / "door").symlink_to(folder)
    assert isinstance(raised(folder / "out.png", folder), Forbidden)
    assert isinstance(raised(folder / "up" / "secret.png", folder), Forbidden)
    assert read(folder / "in.png", folder)
    assert read(folder.parent / "door" / "deep" / "one.png", folder.parent / "door")


def test_what_is_no_ordinary_file_is_not_read(folder: Path) -> None:
    for path in (folder, folder / "deep", folder / "missing.png", folder / ("x" * 300)):
        assert isinstance(raised(path, folder), InvalidValue)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_devices_pipes_and_sockets_are_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.png")
        assert isinstance(raised(folder / "s.png", folder), InvalidValue)
    assert isinstance(raised(folder / "pipe.png", folder), InvalidValue)
    assert isinstance(raised("/dev/zero", Path("/dev")), InvalidValue)


@pytest.mark.parametrize("path", ["one.png", "\0", "/" + "x" * 5000, "http://host/one.png"])
def test_what_is_no_whole_path_is_a_mistake(folder: Path, path: str) -> None:
    assert isinstance(raised(path, folder), InvalidValue)


def test_text_is_no_image(folder: Path) -> None:
    (folder / "notes.png").write_text("root:x:0:0")
    error = raised(folder / "notes.png", folder)
    assert isinstance(error, InvalidValue)
    assert "root" not in error.message


def test_what_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "large.png").open("wb") as file:
        file.truncate(1_000_001)
    with pytest.raises(PayloadTooLarge, match="1 MB"):
        read(folder / "large.png", folder, size=1)
