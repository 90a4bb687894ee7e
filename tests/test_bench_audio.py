"""Which recording the bench hears."""

from __future__ import annotations

import shutil
import wave
from pathlib import Path

import pytest

from llamarunner.bench import audio
from llamarunner.errors import LlamaRunnerError

SPEECH = Path(__file__).parent / "fixtures" / "speech"


def test_the_sample_is_found_in_the_working_directory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a checkout whose package is installed elsewhere."""
    monkeypatch.setattr(audio, "CHECKOUT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LlamaRunnerError, match="--file"):
        audio.one_minute(tmp_path)
    (tmp_path / audio.SAMPLE).parent.mkdir(parents=True)
    shutil.copy(SPEECH / "long.wav", tmp_path / audio.SAMPLE)
    with wave.open(str(audio.one_minute(tmp_path))) as made:
        assert made.getnframes() == 60 * made.getframerate()


@pytest.mark.parametrize("name", ["nowhere.wav", ".", "fixtures.json"])
def test_a_file_that_is_no_recording_is_refused(name: str) -> None:
    with pytest.raises(LlamaRunnerError, match=r"--file.*no (file|recording)"):
        audio.checked(SPEECH / name)
    assert audio.checked(SPEECH / "long.wav") == SPEECH / "long.wav"
