"""Embeddings in Ollama's language."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from doors import open_house

from tests.server.test_ollama_api import BERT, ask, body_of


async def test_texts_become_vectors_in_their_order(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"embed": BERT}) as house:
        status, answer = await ask(house, "/api/embed", {"model": "Embed:latest", "input": ["ab", "", "abc"]})
        assert (status, answer["model"], answer["prompt_eval_count"]) == (200, "Embed:latest", 5)
        assert answer["embeddings"] == [[0.6, 1.6, 0.0], [0.6, 0.8, 0.0], [0.6, 0.8 * 3, 0.0]]
        assert answer["total_duration"] > answer["load_duration"] > 0
        _, one = await ask(house, "/api/embed", {"model": "embed", "input": "a"})
        assert len(one["embeddings"]) == 1


async def test_dimensions_cut_a_vector_and_it_has_length_one_again(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"embed": BERT}) as house:
        _, cut = await ask(house, "/api/embed", {"model": "embed", "input": "ab", "dimensions": 2})
        _, whole = await ask(house, "/api/embed", {"model": "embed", "input": "ab", "dimensions": 99})
    (vector,) = cut["embeddings"]
    assert math.hypot(*vector) == pytest.approx(1)
    assert vector[0] / vector[1] == pytest.approx(0.6 / 1.6)
    assert len(whole["embeddings"][0]) == 3


async def test_without_input_the_model_is_loaded(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"embed": BERT}) as house:
        for path, nothing in (
            ("/api/embed", {"model": "embed", "embeddings": []}),
            ("/api/embeddings", {"embedding": []}),
        ):
            for asked in ({}, {"input": "", "prompt": ""}, {"input": []}):
                assert await ask(house, path, {"model": "embed", **asked}) == (200, nothing)
        assert house.services.supervisor.loaded() == ["embed"]
        assert house.journal("request") == []


async def test_what_is_too_long_is_cut_unless_that_is_not_wanted(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"embed": BERT}, defaults={"ctx_size": 10}) as house:
        asked = {"model": "embed", "input": ["short", "y" * 30]}
        status, answer = await ask(house, "/api/embed", asked)
        assert (status, len(answer["embeddings"])) == (200, 2)
        assert (await body_of(house, "/v1/embeddings"))["input"] == ["short", "y" * 8]
        refused = (400, {"error": "the input length exceeds the context length"})
        assert await ask(house, "/api/embed", {**asked, "truncate": False}) == refused
        status, answer = await ask(house, "/api/embeddings", {"model": "embed", "prompt": "y" * 30})
        assert (status, answer) == (200, {"embedding": [0.6, 0.8 * 8, 0.0]})
