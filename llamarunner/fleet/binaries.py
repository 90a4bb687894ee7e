"""Which runtimes this machine has, and what their builds know: the part that looks around and runs programs.

A build is asked once, when it is first needed, and again when its file has changed: llama.cpp renames and removes
flags often, and a server that runs for weeks sees its binaries being updated.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import llamarunner
from llamarunner.config import RuntimeSettings
from llamarunner.errors import ConfigError, ModelFailed
from llamarunner.fleet.keeping import ENDING, MARKER
from llamarunner.fleet.runtimes import Build, environment, flags_of

log = logging.getLogger("llamarunner.fleet")

ASK_SECONDS = 20.0  # a build for graphics cards may have to wake them before it answers
PYTHON = (sys.executable, "-P", "-m")  # -P: nothing is imported from the working directory

# Runtimes that are Python packages: what is run, and the modules that must be there for it.
PACKAGES: Mapping[str, tuple[str, Collection[str]]] = {
    "xllamacpp": ("llamarunner.workers.llama_server", ("xllamacpp",)),
    "llama-cpp-python": ("llama_cpp.server", ("llama_cpp", "uvicorn", "sse_starlette")),
}


class Binaries:
    """The runtimes of this machine, by kind."""

    def __init__(self, settings: RuntimeSettings, environ: Mapping[str, str]) -> None:
        """Look for the runtimes, without running any. Raises ConfigError if `runtime.binary` is no program."""
        self._commands = locate(settings, environ)
        self._env = environment(environ)
        self._builds: dict[str, tuple[float, Build]] = {}

    @property
    def kinds(self) -> Collection[str]:
        return self._commands.keys()

    def build(self, kind: str) -> Build:
        """Ask the runtime what it is. Blocks, at first for up to `ASK_SECONDS` twice; raises ModelFailed."""
        command = self._commands[kind]
        changed = _changed_at(command[0])
        known = self._builds.get(kind)
        if known is None or known[0] != changed:
            known = self._builds[kind] = changed, ask(kind, command, self._env)
        return known[1]

    def worker(self, program: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """The command and the environment of a program of our own."""
        return (*PYTHON, program), {**self._env, **_import_path()}

    def known_version(self, kind: str) -> str | None:
        """The version of a runtime, if it has been asked already."""
        known = self._builds.get(kind)
        return known[1].version if known else None


def locate(settings: RuntimeSettings, environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the command of each runtime that is here."""
    commands: dict[str, tuple[str, ...]] = {}
    if native := _native(settings, environ):
        commands["llama-server"] = (native,)
    for kind, (program, modules) in PACKAGES.items():
        if all(importlib.util.find_spec(module) for module in modules):
            commands[kind] = (*PYTHON, program)
    return commands


def ask(kind: str, command: tuple[str, ...], env: Mapping[str, str]) -> Build:
    """Run the program's `--help` and return what it tells; raises ModelFailed if it does not work."""
    env = {**env, **(_import_path() if kind == "xllamacpp" else {})}
    flags = flags_of(_output(kind, (*command, "--help"), env))
    if "--model" not in flags:
        raise ModelFailed(f"The runtime {kind} does not work: its --help lists no --model.", retry_after=None)
    return Build(kind, command, _version(kind, command, env), flags, env)


def _native(settings: RuntimeSettings, environ: Mapping[str, str]) -> str | None:
    if settings.binary is None:
        return shutil.which("llama-server", path=environ.get("PATH", os.defpath))
    if found := shutil.which(str(settings.binary)):
        return found
    raise ConfigError((f"$.runtime.binary: {settings.binary} is not a program that can be run",))


def _version(kind: str, command: tuple[str, ...], env: Mapping[str, str]) -> str:
    if kind not in PACKAGES:
        lines = _output(kind, (*command, "--version"), env).splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("version:")), "unknown")
    try:
        return importlib.metadata.version(kind)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _output(kind: str, command: tuple[str, ...], env: Mapping[str, str]) -> str:
    try:
        result = subprocess.run(
            command,
            env={**env, **MARKER},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ASK_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        if ENDING.is_set() and getattr(error, "returncode", None) == -9:
            raise ModelFailed("The server is shutting down.", retry_after=None) from error
        log.error("the runtime %s does not work: %s\n%s", kind, error, _said(error))
        raise ModelFailed(f"The runtime {kind} does not work: {_reason(error)}.", retry_after=None) from error
    return result.stdout.decode(errors="replace")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it did not answer to --help within {ASK_SECONDS:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with exit code {error.returncode}, and the server's log has its words"
    return f"it cannot be started ({error.strerror if isinstance(error, OSError) else 'unknown'})"


def _said(error: Exception) -> str:
    """The last that the program printed, for the log alone: it may name paths."""
    said = getattr(error, "output", None) or b""
    return "\n".join(said.decode(errors="replace").strip().splitlines()[-5:])


def _import_path() -> dict[str, str]:
    """Where our own workers are imported from, if we run from a checkout that is not installed."""
    root = Path(llamarunner.__file__).parent.parent
    installed = root.name in ("site-packages", "dist-packages")
    return {} if installed else {"PYTHONPATH": str(root)}


def _changed_at(program: str) -> float:
    try:
        return os.stat(program).st_mtime
    except OSError:
        return 0.0
