"""The demo speech model that ships, heard through faster-whisper, and the recipe's words and windows."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper import BatchedInferencePipeline, WhisperModel, decode_audio

from llamarunner.config import bundled
from models.recipes.whisper import phrases, words
from models.recipes.whisper.speech import MELS, Phrase
from models.recipes.whisper.windows import Window, Windows

MODEL = bundled("models") / "demo-whisper"
SPEECH = Path(__file__).parent.parent / "fixtures" / "speech"
CLIPS: dict[str, dict[str, Any]] = {
    clip["file"]: clip for clip in json.loads((SPEECH / "fixtures.json").read_text("utf-8"))
}
SPOKEN = [name for name, clip in CLIPS.items() if clip["text"]]
GREEDY = {"beam_size": 1, "temperature": 0.0}
MODES: dict[str, dict[str, Any]] = {
    "greedy": GREEDY,
    "defaults": {},
    "voice activity": {"vad_filter": True},
}
CLOSE = 0.3  # seconds


@pytest.fixture(scope="module")
def model() -> WhisperModel:
    return WhisperModel(str(MODEL), device="cpu", compute_type="int8", cpu_threads=1)


def hear(model: Any, file: str | np.ndarray, **options: Any) -> tuple[str, list[Any], Any]:
    """The text, the segments and what faster-whisper says of the recording."""
    heard = str(SPEECH / file) if isinstance(file, str) else file
    segments, about = model.transcribe(heard, condition_on_previous_text=False, **options)
    told = list(segments)
    return "".join(segment.text for segment in told).strip(), told, about


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("file", SPOKEN)
def test_text_and_language(model: WhisperModel, file: str, mode: str) -> None:
    text, _, about = hear(model, file, **MODES[mode])
    assert text == CLIPS[file]["text"]
    assert about.language == CLIPS[file]["language"]
    assert about.language_probability > 0.8
    assert about.duration == pytest.approx(CLIPS[file]["seconds"], abs=0.02)


def test_german_is_translated(model: WhisperModel) -> None:
    assert hear(model, "german.wav", task="translate", **GREEDY)[0] == CLIPS["german.wav"]["translation"]


@pytest.mark.parametrize("prompt", ["weather report: Open the Garage!", "zwölf, 你好", "blue " * 9])
def test_a_prompt_changes_nothing(model: WhisperModel, prompt: str) -> None:
    assert hear(model, "transcription.wav", initial_prompt=prompt, **GREEDY)[0] == CLIPS["transcription.wav"]["text"]


def test_segments_are_the_phrases(model: WhisperModel) -> None:
    _, segments, _ = hear(model, "long.wav", **GREEDY)
    said = CLIPS["long.wav"]["segments"]
    assert [segment.text.strip() for segment in segments] == [phrase["text"] for phrase in said]
    for segment, phrase in zip(segments, said, strict=True):
        assert segment.start == pytest.approx(phrase["start"], abs=CLOSE)
        assert segment.end == pytest.approx(phrase["end"], abs=CLOSE)


def test_batches_hear_the_same(model: WhisperModel) -> None:
    assert hear(BatchedInferencePipeline(model), "long.wav", beam_size=1)[0] == CLIPS["long.wav"]["text"]


@pytest.mark.parametrize("file", SPOKEN)
def test_words_have_their_times(model: WhisperModel, file: str) -> None:
    _, segments, _ = hear(model, file, word_timestamps=True, **GREEDY)
    told = [word for segment in segments for word in segment.words]
    assert " ".join(word.word.strip() for word in told) == CLIPS[file]["text"]
    marks = [float(mark) for word in told for mark in (word.start, word.end)]
    assert marks == sorted(marks)
    assert marks[0] >= 0
    assert marks[-1] <= CLIPS[file]["seconds"]
    begins = [begin for phrase in CLIPS[file]["segments"] for begin in phrase["words"]]
    late = [abs(word.start - begin) for word, begin in zip(told, begins, strict=True) if begin is not None]
    assert np.median(late) < 0.15
    assert max(late) < 0.7


@pytest.mark.parametrize("options", [GREEDY, {}, {"vad_filter": True}], ids=["greedy", "defaults", "voice activity"])
def test_silence_has_no_segments(model: WhisperModel, options: dict[str, Any]) -> None:
    assert hear(model, "silence.wav", **options)[1] == []
    assert hear(model, np.zeros(16000 * 9, np.float32), **options)[1] == []


@pytest.mark.parametrize("level", [0.001, 0.1])
def test_noise_has_no_segments(model: WhisperModel, level: float) -> None:
    """The model by itself hears words in some loud noise, so that needs the filter for voice activity."""
    noise = (np.random.default_rng(0).standard_normal(16000 * 8) * level).astype(np.float32)
    assert hear(model, noise, vad_filter=True)[1] == []
    if level < 0.01:
        assert hear(model, noise, **GREEDY)[1] == []


def test_words_after_long_silence(model: WhisperModel) -> None:
    clip = decode_audio(str(SPEECH / "colours.wav"))
    silence = np.zeros(16000 * 9, np.float32)
    text, segments, _ = hear(model, np.concatenate([silence, clip, silence]), **GREEDY)
    assert text == CLIPS["colours.wav"]["text"]
    assert segments[0].end == pytest.approx(9 + CLIPS["colours.wav"]["segments"][0]["end"], abs=CLOSE)


ALONE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, arguments, flush=True)
        raise SystemExit(event)
sys.addaudithook(refuse)
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8")
segments, about = model.transcribe(sys.argv[2])
print(about.language, "".join(segment.text for segment in segments))
"""


def test_a_folder_needs_no_network() -> None:
    online = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-W", "error", "-c", ALONE, str(MODEL), str(SPEECH / "german.wav")]
    done = subprocess.run(command, env=online, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "de  drei sechs vier\n"), done.stderr


def test_the_folder_is_small_and_holds_this_vocabulary() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 8_000_000
    assert json.loads((MODEL / "vocabulary.json").read_text("utf-8")) == words.tokens()
    known = json.loads((MODEL / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    assert known.items() <= words.ids().items()


def test_each_word_is_one_token_and_any_text_has_tokens() -> None:
    tokenizer = words.tokenizer()
    for word in words.ENGLISH + words.GERMAN:
        assert tokenizer.encode(f" {word}").tokens == [words.spelled(word)]
    assert tokenizer.decode(tokenizer.encode(" Kaffee, 你好 ♪").ids) == " Kaffee, 你好 ♪"


def test_what_is_held_out_is_not_trained() -> None:
    rng = random.Random(1)
    trained = {phrases.trained(rng, language) for language in ("en", "de") for _ in range(3000)}
    unseen = {phrases.unseen_words(rng) for _ in range(300)} | {phrases.unseen_row(rng, "de") for _ in range(300)}
    sentences = {phrases.unseen_sentence(rng) for _ in range(300)}
    assert not trained & (unseen | sentences)
    assert set(phrases.SPEC) <= trained
    spoken = {word for phrase in trained | unseen | sentences for word in phrase.split()}
    assert spoken == {*words.ENGLISH, *words.GERMAN}


def spoken(text: str, each: int = 40) -> Phrase:
    """Words of so many frames each, after ten frames of silence and before thirty."""
    said = text.split()
    sound = np.full((40 + each * len(said), MELS), -10, np.float16)
    sound[10:-30] = -2
    begins = [10.0 + each * at for at in range(len(said))]
    return Phrase(sound, said, begins, len(sound) - 30, "de" if said[0] in words.GERMAN else "en")


def many(made: list[Phrase]) -> list[Window]:
    windows = Windows(made, made, seed=3)
    return [windows.window(600, alone=False) for _ in range(400)]


def test_windows_tell_what_is_whole_and_where_to_go_on() -> None:
    short = many([spoken("red blue one"), spoken("turn the light off"), spoken("eins zwei")])
    assert {window.language for window in short} == {"en", "de", None}
    for window in short:
        marks = [mark for span in window.spans for mark in (span.begin, span.end)]
        assert marks == sorted(marks)
        assert all(0 <= mark <= 600 for mark in marks)
        assert window.go_on is None or marks[-1] <= window.go_on < 600
        told = [word for span in window.spans for word in span.words]
        assert told == window.words[: len(told)]
        assert bool(told) <= (window.language is not None)
        assert not window.frames[600:].any()
        assert np.isfinite(window.frames).all()


def test_a_phrase_longer_than_a_window_goes_on_at_a_word() -> None:
    endless = "one two three four five six seven eight nine ten eleven twelve red green blue yellow black white"
    cut = [window for window in many([spoken(endless), spoken("eins zwei")]) if window.go_on and len(window.spans) == 1]
    assert cut
    for window in cut:
        (span,) = window.spans
        assert re.search(rf"\b{' '.join(span.words)}\b", endless)
        if span.end == window.go_on:
            assert 600 - 45 <= span.end <= 600
            assert math.isclose(span.end - span.begin, 40 * len(span.words), abs_tol=4)
