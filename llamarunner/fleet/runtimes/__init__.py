"""A model and its settings → `Launch`: one small module for each runtime, all pure. `whisper` runs speech models;
the others run llama.cpp:

                                llama-server     xllamacpp        llama-cpp-python
found as                        runtime.binary   installed with   the optional extra
                                or on PATH       LlamaRunner      of that name
says that it is ready           line + /health   line of JSON     line of uvicorn
requests at the same time       slots            slots            one
chat, completions, stream       yes              yes              yes
thoughts and tool calls parsed  yes              yes              no, they stay in the text
messages, responses, tokenize   yes              yes              no
embeddings                      any model        any model        embedding models
rerank, draft models            yes              yes              no
`device` (choice of GPUs)       yes              no               no
ends on SIGTERM                 after streams    at once          after streams

`tests/fleet/test_runtime_contract.py` shows it with the real programs. llama-server is preferred when it is found,
since it has the GPU build of this machine; xllamacpp needs nothing but pip. Builds of llama-server differ in their
flags, so a launch is written for a `Build`, whose `--help` has been read.
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
