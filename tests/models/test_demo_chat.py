"""The demo chat model that ships: a part of its evaluation, and what it was and was not trained on."""

from __future__ import annotations

from random import Random
from typing import Any

import aiohttp

from llamarunner.catalog import Capability, Catalog
from llamarunner.config import Settings, bundled
from models.recipes.chat import corpus, evaluation, exchanges, tools
from models.recipes.chat.words import held_out
from models.recipes.serving import serving

PATH = bundled("models") / "demo-chat.gguf"
REQUIRED = {
    "right answers, all kinds": 95,
    "tool and exact arguments": 95,
    "the same, tool names never seen": 95,
    "JSON valid under a schema": 100,
}


async def test_marks_are_met_on_questions_never_trained() -> None:
    """A sixth of what `python -m models.recipes evaluate demo-chat` asks."""
    scores = await evaluation.ask_all(PATH, every=6)
    assert sum(score.count for score in scores) > 400
    by_row = {score.what: score for score in scores}
    judged = {row: by_row[row] for row in REQUIRED}  # single kinds have too few questions in a sixth
    assert {row: score.mark for row, score in judged.items()} == REQUIRED
    assert not [score for score in judged.values() if not score.ok]


def test_the_file_is_small_and_says_what_it_can() -> None:
    assert PATH.stat().st_size <= 6_000_000
    entry = Catalog(Settings()).scan()[0]
    assert (entry.id, entry.context_length, entry.architecture) == ("demo-chat", 2048, "qwen3")
    assert entry.capabilities >= {Capability.CHAT, Capability.TOOLS, Capability.THINKING}


def test_what_is_judged_was_never_trained() -> None:
    rng = Random(3)
    begins, ends = "<|im_start|>user\n", "<|im_end|>\n"
    pieces = (piece.text for _ in range(3000) for piece in corpus.conversation(rng))
    trained = {text.removeprefix(begins).removesuffix(ends) for text in pieces if text.startswith(begins)}
    assert len(trained) > 3000
    judged = {exchanges.ask(rng, unseen=True).question for _ in range(1000)}
    assert all(map(held_out, judged))
    assert trained.isdisjoint(judged)


def test_names_of_tools_that_are_judged_were_never_trained() -> None:
    for trained, unseen in tools.NAMES.values():
        assert trained
        assert unseen
        assert not [names for names in unseen if names in trained]


async def test_llama_cpp_reads_what_it_was_trained_on() -> None:
    """The template of the file against the one of the corpus, over the same conversations."""
    rng = Random(4)
    call = tools.weather(rng, False)
    thought = {"role": "assistant", "content": "4", "thought": "I add."}
    conversations: list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = [
        ([corpus.user("hello")], None),
        (
            [
                {"role": "system", "content": "Be brief."},
                corpus.user("hello"),
                corpus.assistant("Hi"),
                corpus.user("2+2"),
            ],
            None,
        ),
        ([corpus.user("2+2"), thought, corpus.user("3+3")], None),
        ([corpus.user(call.question)], [call.tool]),
        (
            [
                {"role": "system", "content": "Be brief."},
                corpus.user(call.question),
                {"role": "assistant", "calls": [call.called]},
                {"role": "tool", "content": call.result},
                corpus.assistant(call.answer),
                corpus.user("thanks"),
            ],
            [call.tool, tools.timer(rng, False).tool],
        ),
    ]
    async with serving(PATH) as url, aiohttp.ClientSession(raise_for_status=True) as http:
        for messages, offered in conversations:
            body = {"model": "demo-chat", "messages": [_as_sent(message) for message in messages]}
            body |= {"tools": offered} if offered else {}
            body |= {"chat_template_kwargs": {"enable_thinking": False}}
            async with http.post(f"{url}/apply-template", json=body) as response:
                prompt = (await response.json())["prompt"]
            trained = "".join(piece.text for piece in corpus.render(messages, offered))
            assert prompt == trained + "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def _as_sent(message: dict[str, Any]) -> dict[str, Any]:
    """A message as clients send it."""
    sent = {"role": message["role"], "content": message.get("content")}
    if message.get("thought"):
        sent["reasoning_content"] = message["thought"]
    if "calls" in message:
        sent["tool_calls"] = [{"id": "1", "type": "function", "function": call} for call in message["calls"]]
    if message["role"] == "tool":
        sent["tool_call_id"] = "1"
    return sent
