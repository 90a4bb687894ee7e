"""Finding runtimes and asking them, with real executables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llamarunner.config import RuntimeSettings, Settings
from llamarunner.errors import ConfigError, ModelFailed
from llamarunner.fleet import binaries
from llamarunner.fleet.binaries import Binaries, ask
from llamarunner.fleet.launcher import Launcher

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the programs are shell scripts")

HELP = 'case "$1" in --help) echo "--model FILE  a file"; echo asked >> "$0.log";; *) echo "version: 42 (abc)";; esac'


def program(folder: Path, script: str, name: str = "llama-server") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_finds_llama_server_on_the_path(tmp_path: Path) -> None:
    path = program(tmp_path, HELP)
    found = Binaries(RuntimeSettings(), {"PATH": str(tmp_path)})
    assert {"llama-server", "xllamacpp"} <= set(found.kinds)
    assert found.build("llama-server").command == (str(path),)
    assert "llama-server" not in Binaries(RuntimeSettings(), {"PATH": str(tmp_path / "empty")}).kinds


def test_a_configured_binary_goes_first(tmp_path: Path) -> None:
    program(tmp_path, HELP)
    mine = program(tmp_path, HELP, "my-build")
    found = Binaries(RuntimeSettings(binary=mine), {"PATH": str(tmp_path)})
    assert found.build("llama-server").command == (str(mine),)


def test_a_configured_binary_that_is_none_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.binary"):
        Binaries(RuntimeSettings(binary=tmp_path / "nothing"), {})


def test_a_build_is_asked_once_until_its_file_changes(tmp_path: Path) -> None:
    path = program(tmp_path, HELP)
    found = Binaries(RuntimeSettings(binary=path), os.environ)
    build = found.build("llama-server")
    assert build.version == "42 (abc)"
    assert build.flags == {"--model"}
    assert found.build("llama-server") is build
    assert Path(f"{path}.log").read_text() == "asked\n"
    os.utime(path, (1, 1))
    assert found.build("llama-server") == build
    assert Path(f"{path}.log").read_text() == "asked\nasked\n"


def test_a_program_is_asked_in_the_environment_of_a_child(tmp_path: Path) -> None:
    path = program(tmp_path, 'echo "--model X"; env | cut -d= -f1 | sed "s/^/-/"')
    environ = {"PATH": os.environ["PATH"], "HTTPS_PROXY": "p", "CUDA_VISIBLE_DEVICES": "0"}
    flags = Binaries(RuntimeSettings(binary=path), environ).build("llama-server").flags
    assert "-CUDA_VISIBLE_DEVICES" in flags
    assert "-HTTPS_PROXY" not in flags


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo /home/me/lib.so: cannot open shared object; exit 127", "exit code 127, and the server's log"),
        ("kill -11 $$", "exit code -11"),
        ("echo hello", "lists no --model"),
    ],
)
def test_a_program_that_does_not_work_is_told_with_its_reason(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(ModelFailed, match=reason) as failure:
        ask("llama-server", (str(program(tmp_path, script)),), {})
    assert "/" not in failure.value.message


def test_a_program_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no program")
    path.chmod(0o755)
    with pytest.raises(ModelFailed, match="cannot be started"):
        ask("llama-server", (str(path),), {})


def test_the_bundled_worker_knows_its_flags_and_version() -> None:
    build = Binaries(RuntimeSettings(), os.environ).build("xllamacpp")
    assert build.command == (sys.executable, "-P", "-m", "llamarunner.workers.llama_server")
    assert {"--model", "--alias", "--no-ui", "--kv-unified", "--offline", "--reranking"} <= build.flags
    assert "--device" not in build.flags
    assert build.version[:2] == "20"


def test_the_bundled_worker_is_found_from_any_working_directory(tmp_path: Path) -> None:
    """A checkout that is not installed is not on the child's import path by itself."""
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert "--model" in Binaries(RuntimeSettings(), os.environ).build("xllamacpp").flags
    finally:
        os.chdir(here)


def test_nothing_is_imported_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the working directory')")
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert binaries.PYTHON[1] == "-P"
        assert "--model" in Binaries(RuntimeSettings(), os.environ).build("xllamacpp").flags
    finally:
        os.chdir(here)


def test_the_launcher_knows_the_version_once_the_runtime_was_asked(tmp_path: Path) -> None:
    launcher = Launcher(Settings(runtime=RuntimeSettings(binary=program(tmp_path, HELP))))
    assert launcher.known() == ("llama-server", None)
    launcher.version()
    assert launcher.known() == ("llama-server", "42 (abc)")
    assert Launcher(Settings(runtime=RuntimeSettings(kind="llama-cpp-python"))).known()[1] is None
