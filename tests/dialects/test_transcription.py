"""Transcripts in each of their shapes, with the times and the texts that others get wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llamarunner.dialects.transcription import (
    FORMATS,
    InvalidAudio,
    Lines,
    Transcript,
    Wanted,
    delta_event,
    done_event,
    error_event,
)
from llamarunner.errors import InvalidRequest, ServerError


def segment(text: str, start: float, end: float, number: int = 0, **more: Any) -> dict[str, Any]:
    measures = {"temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
    times = {"id": number, "seek": 0, "start": start, "end": end}
    return {"type": "segment", "text": text, "tokens": [1], "language": "en", **times, **measures, **more}


def heard(*lines: dict[str, Any], task: str = "transcribe", language: str | None = "en") -> Transcript:
    transcript = Transcript(task)
    for line in lines:
        transcript.take(line)
    transcript.take({"type": "done", "language": language, "duration": 8.47})
    return transcript


def say(transcript: Transcript, kind: str, wanted: Wanted | None = None) -> str:
    return FORMATS[kind][1](transcript, wanted or Wanted()).decode()


TWO = (segment(" Hello, this is a test", 0.0, 2.5), segment(" of the service.", 2.5, 5.2, 1))
WORDS = [
    {"word": " Hello", "start": 0.0, "end": 0.5, "probability": 1.0},
    {"word": " you", "start": 0.5, "end": 0.9, "probability": 0.0},
]


def test_json_is_that_of_the_spec_and_of_openai() -> None:
    assert json.loads(say(heard(*TWO), "json")) == {
        "text": "Hello, this is a test of the service.",
        "language": "en",
        "duration": 8.47,
        "segments": [
            {"start": 0.0, "end": 2.5, "text": "Hello, this is a test"},
            {"start": 2.5, "end": 5.2, "text": "of the service."},
        ],
        "usage": {"type": "duration", "seconds": 9},
    }


def test_translations_have_the_fields_of_the_spec() -> None:
    translated = heard(*TWO, task="translate", language="de")
    told = json.loads(say(translated, "json"))
    assert told == {"text": "Hello, this is a test of the service.", "language": "en", "duration": 8.47}
    verbose = json.loads(say(translated, "verbose_json"))
    assert (verbose["task"], verbose["language"]) == ("translate", "english")
    assert "usage" not in verbose


@pytest.mark.parametrize(
    ("segments", "words", "keys"),
    [(True, False, {"segments"}), (False, True, {"words"}), (True, True, {"segments", "words"})],
)
def test_verbose_json_has_the_times_that_are_asked_for(segments: bool, words: bool, keys: set[str]) -> None:
    told = json.loads(say(heard(segment(" Hello you", 0, 1, words=WORDS)), "verbose_json", Wanted(segments, words)))
    assert told["task"] == "transcribe"
    assert told["language"] == "english"
    assert keys == {"segments", "words"} & told.keys()
    if words:
        assert told["words"] == [
            {"word": "Hello", "start": 0.0, "end": 0.5},
            {"word": "you", "start": 0.5, "end": 0.9},
        ]
    if segments:
        assert told["segments"][0]["text"] == " Hello you"
        assert told["segments"][0]["id"] == 0


def test_text_ends_with_one_line_feed() -> None:
    assert say(heard(*TWO), "text") == "Hello, this is a test of the service.\n"


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (1.9999999, "00:00:02"),
        (59.9996, "00:01:00"),
        (4200.0, "01:10:00"),
        (3599.9999, "01:00:00"),
        (0.0004, "00:00:00"),
        (36_000.5, "10:00:00"),
    ],
)
def test_clocks_are_rounded_as_a_whole(seconds: float, clock: str) -> None:
    milliseconds = "500" if seconds % 1 == 0.5 else "000"
    assert f"{clock},{milliseconds} -->" in say(heard(segment(" x", seconds, seconds + 1)), "srt")
    assert f"{clock}.{milliseconds} -->" in say(heard(segment(" x", seconds, seconds + 1)), "vtt")


def test_subtitles_are_numbered_from_one_and_skip_what_says_nothing() -> None:
    lines = (segment(" one", 0, 1), segment("  ", 1, 2, 1), segment(" two", 2, 3, 2))
    assert say(heard(*lines), "srt") == (
        "1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:02,000 --> 00:00:03,000\ntwo\n\n"
    )


def test_no_speech() -> None:
    silence = heard(language=None)
    assert say(silence, "text") == "\n"
    assert say(silence, "srt") == ""
    assert say(silence, "vtt") == "WEBVTT\n\n"
    told = json.loads(say(silence, "json"))
    assert (told["text"], told["language"], told["segments"]) == ("", None, [])


def test_no_text_ends_a_cue_or_begins_a_tag() -> None:
    nasty = heard(segment(" one\n\n2\n00:00 --> 00:01 <b>&", 0, 1))
    assert say(nasty, "vtt").count("-->") == 1
    assert say(nasty, "srt").count("-->") == 1
    assert "&lt;b&gt;&amp;" in say(nasty, "vtt")
    assert len(re.split(r"\n\n", say(nasty, "vtt").strip())) == 2


def test_phrases_without_a_space_between_them_get_one() -> None:
    assert heard(segment("one", 0, 1), segment("two", 1, 2)).text == "one two"
    chinese = [segment(text, 0, 1, language="zh") for text in ("你好", "世界")]
    assert heard(*chinese, language="zh").text == "你好世界"


def test_deltas_make_up_the_text() -> None:
    transcript = Transcript()
    deltas = [transcript.take(line) for line in (*TWO, segment("and more", 6, 7), segment(" ", 7, 8))]
    assert "".join(deltas).rstrip() == transcript.text == "Hello, this is a test of the service. and more"


def test_events() -> None:
    transcript = heard(segment(" Hello you", 0, 1, words=WORDS))
    delta = json.loads(delta_event("Hello you", tuple(transcript.words)).removeprefix(b"data: "))
    assert delta["type"] == "transcript.text.delta"
    assert [one["token"] for one in delta["logprobs"]] == [" Hello", " you"]
    assert [one["logprob"] for one in delta["logprobs"]] == [0.0, pytest.approx(-23.02585)]
    assert bytes(delta["logprobs"][0]["bytes"]) == b" Hello"
    done, end = done_event(transcript, Wanted()).strip().split(b"\n\n")
    told = json.loads(done.removeprefix(b"data: "))
    assert (told["type"], told["text"], told["usage"]["seconds"]) == ("transcript.text.done", "Hello you", 9)
    assert end == b"data: [DONE]"


def test_an_error_event_is_one_that_openai_raises() -> None:
    event, end = error_event(ServerError("It broke."), "id").strip().split(b"\n\n")
    told = json.loads(event.removeprefix(b"data: "))
    assert (told["type"], told["error"]["message"]) == ("error", "It broke.")
    assert end == b"data: [DONE]"


def test_what_the_worker_refuses() -> None:
    with pytest.raises(InvalidAudio) as refused:
        heard({"type": "error", "code": "invalid_audio", "message": "No sound.", "param": "file"})
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "file", "invalid_audio")
    with pytest.raises(InvalidRequest):
        heard({"type": "error", "code": "invalid_request", "message": "English only.", "param": "language"})
    with pytest.raises(ServerError):
        heard({"type": "error", "code": "server_error", "message": "It failed.", "param": None})


def test_lines_are_put_together_from_any_pieces() -> None:
    whole = b'{"type": "a"}\n\n{"type": "\xc3\xa4"}\n'
    lines = Lines()
    told = [line for at in range(len(whole)) for line in lines.feed(whole[at : at + 1])]
    assert [line["type"] for line in told] == ["a", "ä"]
