"""Tokens are found at the ends of an answer, however it is cut, and nothing in it confuses the finder."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects.usage import HEAD_BYTES, PIECES, TAIL_BYTES, Ends, Usage, of_answer, read

TIMINGS = (
    '"timings":{"cache_n":19,"prompt_n":1,"prompt_ms":0.453,"predicted_n":12,"predicted_ms":3.348,'
    '"predicted_per_second":3285.5}'
)
CHAT = (
    'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"model":"m"}\n\n'
    + 'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a"}}],"model":"m"}\n\n' * 80
)
# As llama.cpp's server says them.
TRANSCRIPTS = {
    "chat": CHAT + 'data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],' + TIMINGS + "}\n\n"
    "data: [DONE]\n\n",
    "chat with usage": CHAT + 'data: {"choices":[],"usage":{"completion_tokens":12,"prompt_tokens":20,'
    '"total_tokens":32,"prompt_tokens_details":{"cached_tokens":19}},' + TIMINGS + "}\n\ndata: [DONE]\n\n",
    "completions": 'data: {"choices":[{"text":"x"}]}\n\ndata: {"choices":[{"text":"","finish_reason":"length"}],'
    '"usage":{"completion_tokens":12,"prompt_tokens":20,"total_tokens":32},"id":"c",' + TIMINGS + "}\n\n"
    "data: [DONE]\n\n",
    "responses": "event: response.output_text.delta\ndata: {}\n\n" * 100 + "event: response.completed\n"
    'data: {"type":"response.completed","response":{"output":[{"text":"'
    + "long "
    * 900
    + '"}],"usage":{"input_tokens":20,"output_tokens":12,"total_tokens":32,"input_tokens_details":'
    '{"cached_tokens":19}}},' + TIMINGS + "}\n\n",
    "messages": 'event: message_start\ndata: {"type":"message_start","message":{"id":"c","usage":'
    '{"cache_read_input_tokens":19,"input_tokens":1,"output_tokens":0}}}\n\n'
    + 'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":" F"}}\n\n'
    * 100
    + 'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":12}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
@given(data=st.data())
def test_any_cutting_of_a_stream_gives_the_same_counts(name: str, data: st.DataObject) -> None:
    whole = TRANSCRIPTS[name].encode()
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=200))
    ends = Ends()
    for start, end in pairwise([0, *sorted(cuts), len(whole)]):
        ends.add(whole[start:end])
    usage = read(ends.head, ends.tail)
    assert (usage.prompt, usage.completion) == (20, 12)
    assert usage.tokens_per_second == (None if name == "messages" else 3285.5)


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_byte_by_byte_is_the_same(name: str) -> None:
    ends = Ends()
    for byte in TRANSCRIPTS[name].encode():
        ends.add(bytes([byte]))
    assert read(ends.head, ends.tail)[:2] == (20, 12)


@given(st.lists(st.binary(max_size=600) | st.binary(min_size=TAIL_BYTES - 1, max_size=9000), max_size=3 * PIECES))
def test_the_ends_are_the_ends(pieces: list[bytes]) -> None:
    ends = Ends()
    for piece in pieces:
        ends.add(piece)
    whole = b"".join(pieces)
    assert (ends.head, ends.tail) == (whole[:HEAD_BYTES], whole[-TAIL_BYTES:])


@pytest.mark.parametrize("size", [1, 300, TAIL_BYTES, 2**16])
def test_little_is_kept_of_much(size: int) -> None:
    """A stream that its client reads slowly comes in large pieces."""
    ends = Ends()
    for _ in range(10 * PIECES):
        ends.add(bytes(size))
        assert sum(map(len, (*ends._pieces, ends._head, ends._tail))) <= 70_000


def test_the_ends_can_be_looked_at_in_between() -> None:
    ends = Ends()
    for piece in (b"a", b"b", b"c"):
        ends.add(piece)
        assert ends.tail.endswith(piece)
    assert (ends.head, ends.tail) == (b"abc", b"abc")


def test_usage_before_megabytes_is_found() -> None:
    """As an embedding has it."""
    body = '{"object":"list","usage":{"prompt_tokens":6,"total_tokens":6},"data":[' + "0.5," * 1_000_000 + "1]}"
    assert of_answer(body.encode()) == Usage(6, None, None)


def test_what_the_cache_had_is_part_of_the_prompt() -> None:
    body = {"usage": {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 4, "input_tokens": 2}}
    assert of_answer(json.dumps(body).encode()).prompt == 36


def test_a_stream_of_messages_that_broke_off_has_a_prompt_and_no_count_of_its_answer() -> None:
    half = TRANSCRIPTS["messages"].encode()[:400]
    assert read(half, half) == Usage(20, None, None)


def test_words_of_the_answer_are_not_its_usage() -> None:
    said = json.dumps('"usage":{"prompt_tokens":1,"completion_tokens":1},"timings":{"predicted_n":9} "message_start"')
    body = f'{{"usage":{{"prompt_tokens":3,"completion_tokens":4}},"choices":[{{"text":{said}}}]}}'
    assert of_answer(body.encode()) == Usage(3, 4, None)


@pytest.mark.parametrize(
    "usage",
    [
        "null",
        "[]",
        "7",
        '{"prompt_tokens":"3","completion_tokens":-1}',
        '{"prompt_tokens":true,"completion_tokens":1e999}',
        '{"prompt_tokens":' + "9" * 400 + ',"completion_tokens":1.5}',
        '{"prompt_tokens":',
        "[" * 3000,
    ],
)
def test_nonsense_is_no_count(usage: str) -> None:
    assert of_answer(f'{{"usage":{usage}'.encode()) == Usage()


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_nothing_raises(head: bytes, tail: bytes) -> None:
    for name in (b"", b'"usage":', b'"timings":', b'"usage":{"prompt_tokens":'):
        usage = read(head + name + tail, tail + name + head)
        assert all(value is None or value >= 0 for value in usage)


@pytest.mark.parametrize("speed", ["0", "-1", "1e999", "NaN", '"7"', "null"])
def test_a_speed_that_is_none_is_left_out(speed: str) -> None:
    assert of_answer(f'{{"timings":{{"predicted_per_second":{speed}}}}}'.encode()).tokens_per_second is None
