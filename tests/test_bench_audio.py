"""Which recording the bench hears."""

from __future__ import annotations

import shutil
import wave
from pathlib import Path

import pytest

from llamarunner.bench import audio
from llamarunner.catalog import Catalog
from llamarunner.config import Settings, bundled
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


def test_a_model_may_be_named_by_its_folder(tmp_path: Path) -> None:
    """And is the one taken where another has its name."""
    folder = tmp_path / "mine" / "demo-whisper"
    shutil.copytree(bundled("models") / "demo-whisper", folder)
    settings, entry = audio.pick(Settings(), str(folder))
    assert entry.path.parent == folder
    assert settings.catalog.folders == (folder,)
    known = Catalog(audio.bench_settings(settings))
    known.scan()
    assert known.find(entry.id).path == entry.path
    with pytest.raises(LlamaRunnerError, match="holds no model"):
        audio.pick(Settings(), str(SPEECH))


def test_rounds_are_compared_one_by_one() -> None:
    """A slow minute makes both slow."""
    assert audio.paired([1.1, 11.0, 1.0], [1.0, 10.0, 10.0]) == pytest.approx(1.1)


@pytest.mark.parametrize("name", ["nowhere.wav", ".", "fixtures.json"])
def test_a_file_that_is_no_recording_is_refused(name: str) -> None:
    with pytest.raises(LlamaRunnerError, match=r"--file.*no (file|recording)"):
        audio.checked(SPEECH / name)
    assert audio.checked(SPEECH / "long.wav") == SPEECH / "long.wav"
