"""The model: loaded, tried once, and interruptible between its steps."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel

MOST_THREADS = 4  # of one slot: Whisper gains little from more
MOST_HOTWORD_TOKENS = 100  # with a long prompt, more than twice as many would not fit into the decoder
SPECIAL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
PREFERRED = {"cpu": ("int8", "float32"), "cuda": ("float16", "int8_float16", "int8", "float32")}


class Cancelled(Exception):
    """Nobody waits for the result any more."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the model is run; zero threads or slots: as fits this machine."""

    folder: str
    device: str = "auto"
    compute_type: str = "auto"
    threads: int = 0  # of each slot
    slots: int = 0  # slices that are decoded at the same time
    batch_size: int = 4  # windows of one slice that are decoded together
    beam_size: int = 5


class Model:
    """A loaded model, for several threads."""

    def __init__(self, options: Options) -> None:
        """Load and try it, which takes seconds. Raises what faster-whisper and CTranslate2 raise."""
        device = options.device
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        threads = options.threads or min(MOST_THREADS, os.cpu_count() or 1)
        self.slots = options.slots or slots_for(device, threads)
        self.batch_size, self.beam_size = options.batch_size, options.beam_size
        self.whisper = WhisperModel(
            options.folder,
            device=device,
            compute_type=compute_type(device, options.compute_type),
            cpu_threads=threads,
            num_workers=self.slots,
            local_files_only=True,
        )
        self.multilingual = bool(self.whisper.model.is_multilingual)
        self.window_seconds = float(self.whisper.feature_extractor.chunk_length)
        self._try()
        self._checks = threading.local()
        self.whisper.model = Interruptible(self.whisper.model, self._checks)

    def interruptible(self, check: Callable[[], None]) -> None:
        """Let the work of this thread call `check`, which may raise, before each step of the model."""
        self._checks.check = check

    @staticmethod
    def plain(text: str) -> str | None:
        """A prompt without special tokens, which would be taken for commands, nor what remains of nested ones."""
        return SPECIAL_TOKEN.sub("", text).replace("<|", " ").strip() or None

    def hotwords(self, text: str) -> str | None:
        """Hot words, as many as are sure to fit."""
        tokens = self.whisper.hf_tokenizer.encode(self.plain(text) or "", add_special_tokens=False).ids
        return self.whisper.hf_tokenizer.decode(tokens[:MOST_HOTWORD_TOKENS]).strip() or None

    def _try(self) -> None:
        """Use every part once: a folder with something missing or wrong may load, and fail at the first request."""
        features = self.whisper.feature_extractor(np.zeros(1600, np.float32))
        frames = self.whisper.feature_extractor.nb_max_frames
        padded = np.pad(features[:, :frames], ((0, 0), (0, max(0, frames - features.shape[1]))))
        seen = self.whisper.encode(padded)
        if self.multilingual and not self.whisper.model.detect_language(seen)[0]:
            raise ValueError("config.json has no lang_ids")
        prompt = [self.whisper.hf_tokenizer.token_to_id("<|startoftranscript|>")]
        self.whisper.model.generate(seen, [prompt], max_length=2, beam_size=1)


class Interruptible:
    """CTranslate2's model, which asks before each step whether to go on: it cannot be stopped within one."""

    def __init__(self, model: Any, checks: threading.local) -> None:
        self._model = model
        self._checks = checks

    def __getattr__(self, name: str) -> Any:
        check = getattr(self._checks, "check", None)
        if check is not None:
            check()
        return getattr(self._model, name)


def slots_for(device: str, threads: int) -> int:
    """As many as the cores can feed; on a GPU one more, which prepares while the other computes."""
    return 2 if device == "cuda" else max(1, min(4, (os.cpu_count() or 1) // threads))


def compute_type(device: str, wanted: str) -> str:
    """The fastest type that this device computes in, unless one is wanted."""
    if wanted != "auto":
        return wanted
    known = ctranslate2.get_supported_compute_types(device)
    return next((one for one in PREFERRED[device] if one in known), "default")
