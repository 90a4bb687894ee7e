"""The fields of a form, in every way in which clients spell them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llamarunner.errors import InvalidRequest
from llamarunner.server.audio_form import AudioRequest, TranscriptionRequest, parse

Fields = list[tuple[str, str]]


def read(*fields: tuple[str, str]) -> TranscriptionRequest:
    asked = parse(TranscriptionRequest, fields)
    assert isinstance(asked, TranscriptionRequest)
    return asked


def test_what_is_not_asked_is_as_documented() -> None:
    asked = read()
    assert (asked.model, asked.response_format, asked.temperature, asked.stream) == ("whisper-1", "json", 0, False)
    assert asked.timestamp_granularities == ("segment",)
    assert asked.vad(by_default=True) == {}
    assert asked.vad(by_default=False) is None


@pytest.mark.parametrize(
    "fields",
    [
        [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
        [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
        [("timestamp_granularities", '["word", "segment"]')],
        [("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
    ],
)
def test_lists_in_each_spelling(fields: Fields) -> None:
    assert read(*fields).timestamp_granularities == ("word", "segment")


@pytest.mark.parametrize(
    "fields",
    [
        [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.7")],
        [("chunking_strategy", '{"type": "server_vad", "threshold": 0.7}')],
    ],
)
def test_objects_in_each_spelling(fields: Fields) -> None:
    vad = read(*fields).vad(by_default=False)
    assert vad == {"threshold": 0.7, "speech_pad_ms": 300, "min_silence_duration_ms": 200}


def test_auto_skips_silence() -> None:
    assert read(("chunking_strategy", "auto")).vad(by_default=False) == {}


@pytest.mark.parametrize(
    ("said", "code"), [("en", "en"), ("EN", "en"), ("English", "en"), ("pt-BR", "pt"), ("Castilian", "es"), ("", None)]
)
def test_languages(said: str, code: str | None) -> None:
    assert read(("language", said)).language == code


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_switches(said: str, meant: bool) -> None:
    assert read(("stream", said)).stream is meant


def test_fields_of_newer_models_and_empty_ones_are_passed_over() -> None:
    asked = read(("known_speaker_names[]", "Anna"), ("language", ""), ("prompt", ""), ("temperature", ""))
    assert asked == read()


@pytest.mark.parametrize("name", ["known_speaker_names[]", "languages[]", "keywords", "speakers[first]", "language"])
def test_fields_that_are_not_read_may_come_more_than_once(name: str) -> None:
    assert parse(AudioRequest, [(name, "Anna"), (name, "Berta"), (name, "[")] * 20) == parse(AudioRequest, [])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("temperature", "warm")], "temperature"),
        ([("temperature", "1.5")], "temperature"),
        ([("temperature", "-0.1")], "temperature"),
        ([("temperature", "nan")], "temperature"),
        ([("response_format", "diarized_json")], "response_format"),
        ([("response_format", "JSON ")], "response_format"),
        ([("language", "klingon")], "language"),
        ([("stream", "perhaps")], "stream"),
        ([("timestamp_granularities[]", "minute")], "timestamp_granularities"),
        ([("timestamp_granularities", "[[[[")], "timestamp_granularities"),
        ([("include[]", "everything")], "include"),
        ([("chunking_strategy", "never")], "chunking_strategy"),
        ([("chunking_strategy[type]", "client_vad")], "chunking_strategy"),
        ([("chunking_strategy[threshold]", "2")], "chunking_strategy"),
        ([("chunking_strategy", "auto"), ("chunking_strategy[type]", "server_vad")], "chunking_strategy"),
        ([("chunking_strategy", "[" * 20_000)], "chunking_strategy"),
        ([("model", "a"), ("model", "b")], "model"),
        ([("model", "")], "model"),
        ([("prompt[x]", "a")], "prompt"),
    ],
)
def test_mistakes_name_the_field(fields: Fields, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(*fields)
    assert refused.value.param == param
    assert param in refused.value.message


@pytest.mark.parametrize("name", ["chunking_strategy", "chunking_strategy[threshold]"])
def test_both_forms_of_chunking_strategy_are_told(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"auto.*server_vad.*threshold") as refused:
        read((name, "7"))
    assert "'chunking_strategy'" in refused.value.message


def test_translations_know_no_language() -> None:
    asked: Any = parse(AudioRequest, [("language", "klingon")])
    assert not hasattr(asked, "language")


def test_long_lists_are_refused_before_each_item_is_judged() -> None:
    items = "[" + ",".join(['"x"'] * 15_000) + "]"
    began = time.thread_time()
    with pytest.raises(InvalidRequest) as caught:
        read(*[("timestamp_granularities[]", items)] * 20)
    assert caught.value.param == "timestamp_granularities"
    assert time.thread_time() < began + 0.2


def test_lists_have_sixteen_items_at_most() -> None:
    assert len(read(*[("include[]", "logprobs")] * 16).include) == 16
    with pytest.raises(InvalidRequest, match="more than 16") as caught:
        read(*[("include[]", "logprobs")] * 17)
    assert caught.value.param == "include"
