"""A model, a task and settings → `Launch`, with the runtimes of this machine."""

from __future__ import annotations

import logging
import os
import secrets

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings, Settings
from llamarunner.errors import ModelFailed
from llamarunner.fleet import runtimes
from llamarunner.fleet.binaries import Binaries
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.runtimes import whisper

log = logging.getLogger("llamarunner.fleet")


class Launcher:
    """Call it to get a launch with a fresh secret; the first call may block while a runtime is asked what it can."""

    def __init__(self, settings: Settings) -> None:
        """Look for the runtimes. Raises ConfigError if `runtime.binary` is no program."""
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take over new settings for the launches to come. Raises ConfigError, and then keeps the old ones."""
        self._machine = Binaries(settings.runtime, os.environ)
        self._settings = settings

    def __call__(self, entry: ModelEntry, task: Task, model: ModelSettings) -> Launch:
        """Raises ModelFailed if no runtime is here, or the one chosen cannot do what the settings ask."""
        secret = secrets.token_urlsafe(24)
        if task is Task.TRANSCRIBE:
            speech = self._settings.audio.for_model(entry.id)
            return whisper.describe(entry, speech, secret, *self._machine.worker(whisper.PROGRAM))
        kind, _ = self.choose(model.runtime)
        build = self._machine.build(kind)
        launch = runtimes.describe(entry, model, task, secret, build)
        for warning in launch.warnings:
            log.warning("%s: %s", entry.id, warning)
        return launch

    def choose(self, kind: str | None = None) -> tuple[str, str]:
        """The kind of runtime that will run models, and why; `kind` overrides what the settings say for all."""
        return runtimes.choose(kind or self._settings.runtime.kind, self._machine.kinds)

    def known(self) -> tuple[str | None, str | None]:
        """The kind of runtime that will run models, and its version; None for what is not known yet. Never blocks."""
        try:
            kind = self.choose()[0]
        except ModelFailed:
            return None, None
        return kind, self._machine.known_version(kind)

    def version(self) -> str:
        """The version of the runtime that will run models; blocks for the first answer. Raises ModelFailed."""
        return self._machine.build(self.choose()[0]).version
