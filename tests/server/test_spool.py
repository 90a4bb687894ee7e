"""The folder of uploads: private, and gone afterwards, whoever's it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llamarunner.server.spool import Spool


def test_a_file_lies_in_a_private_folder_until_the_end_of_the_block(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert not list(tmp_path.iterdir())
    with spool.file() as (file, path):
        file.write(b"x")
        assert path.read_bytes() == b"x"
        assert path.parent.parent == tmp_path
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
    assert not list(path.parent.iterdir())
    spool.close()
    assert not list(tmp_path.iterdir())


DIES = """
import os, sys
from pathlib import Path
from llamarunner.server.spool import Spool
with Spool(Path(sys.argv[1])).file():
    os._exit(9)
"""


def test_what_a_dead_server_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False, timeout=20)
    (left,) = tmp_path.iterdir()
    assert list(left.iterdir())
    with Spool(tmp_path).file() as (_, ours):
        reused = tmp_path / f"llamarunner-uploads-{os.getpid()}-{int(psutil.Process().create_time()) - 100}-x"
        link = tmp_path / "llamarunner-uploads-1-1-link"
        strange = tmp_path / "llamarunner-uploads-notes"
        kept = tmp_path / "kept"
        for folder in (reused, strange, kept):
            folder.mkdir()
        (kept / "file").touch()
        link.symlink_to(kept)
        Spool(tmp_path).sweep()
        assert sorted(tmp_path.iterdir()) == sorted([ours.parent, strange, kept, link])
        assert (kept / "file").exists()
        assert ours.exists()


def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    """Also the one that the settings name."""
    parent = tmp_path / "not" / "there"
    spool = Spool(parent)
    for _ in range(2):
        with spool.file() as (file, path):
            file.write(b"x")
            assert path.read_bytes() == b"x"
            assert path.parent.parent == parent
        shutil.rmtree(tmp_path / "not")
    spool.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_dead_server_whose_parent_has_not_noticed_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIES, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdout.read() == b""  # until it ends
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(server.pid).status() == psutil.STATUS_ZOMBIE
        assert list(tmp_path.iterdir())
        Spool(tmp_path).sweep()
        assert not list(tmp_path.iterdir())


def test_uploads_move_to_another_folder(tmp_path: Path) -> None:
    """Those that are under way stay where they are, and go as the others do."""
    spool = Spool(tmp_path / "a")
    with spool.file() as (_, old):
        spool.configure(tmp_path / "b")
        assert old.exists()
        with spool.file() as (_, new):
            assert new.parent.parent == tmp_path / "b"
            spool.configure(tmp_path / "b")
            with spool.file() as (_, another):
                assert another.parent == new.parent
    spool.close()
    assert not [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()]


def test_a_folder_that_is_not_there_is_swept_in_silence(tmp_path: Path) -> None:
    Spool(tmp_path / "nowhere").sweep()
