"""The bundled runtime: llama.cpp's own server from the xllamacpp wheel, run by `llamarunner.workers.llama_server`.

It takes llama-server's flags, and says in one line of JSON where it listens, after the model is loaded.
"""

from __future__ import annotations

import dataclasses
import re

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.runtimes import llama_server
from llamarunner.fleet.runtimes.build import Build

ANNOUNCES = re.compile(r'^\{"event": ?"ready", ?"port": ?(?P<port>[1-9]\d*)')


def describe(entry: ModelEntry, settings: ModelSettings, task: Task, api_key: str, build: Build) -> Launch:
    """Describe how the bundled worker serves the model; raises ModelFailed if it lacks what a setting needs."""
    launch = llama_server.describe(entry, settings, task, api_key, build)
    return dataclasses.replace(launch, announces=ANNOUNCES, health=None)
