"""How speech is turned into text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from llamarunner.config.model import Frozen, Threads, parts_for
from llamarunner.config.paths import ConfigPath

ComputeType = Literal[
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
]


Name = Annotated[str, Field(min_length=1, max_length=512)]


class SpeechSettings(Frozen):
    """How a speech model is run; for one model, what is unset is as for all."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where speech models compute.")
    compute_type: ComputeType = Field(
        "auto", description="Type of the arithmetic; auto takes int8 on processors and float16 on graphics cards."
    )
    threads: Threads | None = Field(
        None, description="CPU threads of each slot; unset takes up to four, as the machine has them."
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Recordings that a model decodes at the same time; unset takes as many as the cores can feed.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Windows of 30 seconds of a recording that are decoded together, 1 is one by one; unset takes 4, "
        "and 1 for tiny models.",
    )
    beam_size: int = Field(5, ge=1, le=64, description="Width of the beam search; 1 is fastest.")


class AudioSettings(SpeechSettings):
    """How speech is turned into text, by faster-whisper."""

    default_model: Name | None = Field(
        None, description="The model that whisper-1 means; unset takes one that is there and works."
    )
    models: Mapping[Name, SpeechSettings] = Field(
        {},
        description="How some speech models are run, by id or by a glob of ids; the later wins, and an exact id over "
        "globs.",
    )
    vad: bool = Field(
        True, description="Skip silence, in which Whisper may hear words; requests may ask with chunking_strategy."
    )
    max_duration_hours: float = Field(4, gt=0, le=1000, description="Longest recording, in hours.")
    upload_folder: ConfigPath | None = Field(
        None, description="Where uploads lie until they are done; unset takes the system's folder for such files."
    )
    text_in_events: bool = Field(
        False, description="Tell the text of a transcription in its event, and so to webhooks."
    )

    def for_model(self, model_id: str) -> SpeechSettings:
        """Merge what is said about a speech model: what holds for all, then the globs, then its own id."""
        merged = {name: getattr(self, name) for name in SpeechSettings.model_fields}
        for part in parts_for(self.models, model_id):
            merged |= {name: getattr(part, name) for name in part.model_fields_set}
        return SpeechSettings(**merged)
