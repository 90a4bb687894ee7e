"""A model and its settings → `Launch`: one small module for each runtime, all pure.

runtime             found as                                     why one would
llama-server        runtime.binary, or llama-server on PATH      it has the GPU build of this machine
xllamacpp           installed with LlamaRunner                   no compiler, nothing to choose; the default
llama-cpp-python    the optional extra of that name              its Python ecosystem, chat formats of its own
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.errors import ModelFailed
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.runtimes import llama_cpp_python, llama_server, xllamacpp
from llamarunner.fleet.runtimes.build import Build, environment, flags_of

__all__ = ["RUNTIMES", "Build", "Describe", "choose", "describe", "environment", "flags_of"]

Describe = Callable[[ModelEntry, ModelSettings, Task, str, Build], Launch]

RUNTIMES: Mapping[str, Describe] = {
    "llama-server": llama_server.describe,
    "xllamacpp": xllamacpp.describe,
    "llama-cpp-python": llama_cpp_python.describe,
}
AUTOMATIC = ("llama-server", "xllamacpp")
GET_IT = {
    "llama-server": "put llama.cpp's llama-server on PATH or name it in runtime.binary",
    "xllamacpp": "pip install xllamacpp",
    "llama-cpp-python": "pip install 'llamarunner[llama-cpp-python]'",
}


def describe(entry: ModelEntry, settings: ModelSettings, task: Task, api_key: str, build: Build) -> Launch:
    """Describe how this build serves the model; raises ModelFailed if it lacks what a setting or the task needs."""
    return RUNTIMES[build.kind](entry, settings, task, api_key, build)


def choose(wanted: str, found: Collection[str]) -> tuple[str, str]:
    """Return the kind of runtime to use and why, for people; raises ModelFailed if it is not on this machine."""
    if wanted != "auto":
        if wanted in found:
            return wanted, "it is chosen in the settings"
        raise ModelFailed(f"The runtime {wanted} was not found: {GET_IT[wanted]}.", retry_after=None)
    for kind, why in zip(AUTOMATIC, ("it was found on this machine", "no llama-server was found"), strict=True):
        if kind in found:
            return kind, why
    raise ModelFailed(f"No runtime was found: {GET_IT['xllamacpp']}.", retry_after=None)
