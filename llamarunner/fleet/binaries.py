"""(interim, by the lead, to unblock; the runtimes engineer replaces this file)"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

from llamarunner.config import RuntimeSettings
from llamarunner.fleet.runtimes import Build, environment


def found(settings: RuntimeSettings) -> frozenset[str]:
    kinds = {"xllamacpp"}
    if settings.binary or shutil.which("llama-server"):
        kinds.add("llama-server")
    if find_spec("llama_cpp"):
        kinds.add("llama-cpp-python")
    return frozenset(kinds)


def build(kind: str, settings: RuntimeSettings) -> Build:
    command = {
        "llama-server": (str(settings.binary or shutil.which("llama-server")),),
        "xllamacpp": (sys.executable, "-P", "-m", "llamarunner.workers.llama_server"),
        "llama-cpp-python": (sys.executable, "-m", "llama_cpp.server"),
    }[kind]
    env = environment(os.environ) | {"PYTHONPATH": os.getcwd()}
    text = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=20, env=env).stdout
    return Build(kind, command, "?", frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text)), env)
