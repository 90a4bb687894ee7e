"""How an answer is written; `tests/house/test_verbs_chat.py` has it on a terminal."""

from __future__ import annotations

import io

import pytest

from llamarunner.verbs.answers import Answer, figures
from llamarunner.verbs.client import BrokenOff, Json


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(text: str = "", thinking: str = "", **more: object) -> Json:
    return {"message": {"role": "assistant", "content": text, "thinking": thinking}, "done": False, **more}


DONE = {"message": {"role": "assistant", "content": ""}, "done": True}


def written(out: io.StringIO, *lines: Json) -> str:
    answer = Answer(out=out)
    for line in lines:
        answer.take(line)
    answer.end()
    return out.getvalue()


def test_where_nobody_looks_only_the_answer_is_written_as_it_is() -> None:
    assert written(io.StringIO(), said(thinking="Hm."), said("a\x1b[1m"), said("b"), DONE) == "a\x1b[1mb\n"
    assert written(io.StringIO(), said("a\n"), DONE) == "a\n"


@pytest.mark.parametrize("thinking", ["Hm.", "Hm.\n", "Hm.\n\n"])
def test_one_blank_line_is_between_thoughts_and_answer(thinking: str) -> None:
    pieces = [said(thinking=letter) for letter in thinking]
    plain = written(Screen(), *pieces, said("a"), DONE).replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert plain == "Hm.\n\na\n"


def test_an_answer_without_an_end_is_a_failure() -> None:
    with pytest.raises(BrokenOff):
        written(io.StringIO(), said("a"))


def test_figures_tell_the_speed() -> None:
    last = {"total_duration": 2 * 10**9, "eval_count": 30, "eval_duration": 10**9, "prompt_eval_count": 5}
    assert figures(last) == "total 2.00 s, load 0.00 s, prompt 5 tokens, answer 30 tokens at 30.0/s"
