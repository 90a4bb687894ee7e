"""The official clients of OpenAI and Anthropic where LM Studio's door has its own ways."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from tests.conftest import UNLIMITED_DOORS
from tests.house.conftest import OpenHouse

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
TOKEN = "sk-lm-abcdefgh:0123456789abcdefghij"
QUIET: Any = {"temperature": 0, "reasoning_effort": "none"}


async def test_openai(open_house: OpenHouse) -> None:
    """Any name is answered by the loaded model, v0 is an address like another, and errors are the client's own."""
    doors = {**UNLIMITED_DOORS, "lmstudio": {**UNLIMITED_DOORS["lmstudio"], "api_keys": [TOKEN]}}
    async with open_house({"proxies": doors}) as house:
        urls = (house.url + "/v1", house.url + "/api/v0")
        new, old = (openai.AsyncOpenAI(base_url=url, api_key=TOKEN, max_retries=0) for url in urls)
        async with new, old:
            with pytest.raises(openai.NotFoundError) as unknown:
                await new.chat.completions.create(model="gpt-4o", messages=QUESTION)
            assert "The model 'gpt-4o' was not found." in unknown.value.message
            assert unknown.value.code == "model_not_found"
            developer: Any = [{"role": "developer", "content": "You are a helpful assistant."}, *QUESTION]
            named = await new.chat.completions.create(
                model="DEMO-CHAT", messages=developer, max_tokens=-1, extra_body={"ttl": 300}, **QUIET
            )
            assert (named.model, named.choices[0].message.content) == ("demo-chat", ANSWER)
            other = await new.chat.completions.create(model="gpt-4o", messages=QUESTION, **QUIET)
            assert (other.model, other.choices[0].message.content) == ("demo-chat", ANSWER)
            told = await old.chat.completions.create(model="gpt-4o", messages=QUESTION, **QUIET)
            assert told.choices[0].message.content == ANSWER
            assert told.stats["stop_reason"] == "eosFound"  # type: ignore[attr-defined]
            stream = await old.chat.completions.create(model="demo-chat", messages=QUESTION, stream=True, **QUIET)
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
            assert chunks[-1].model_info["format"] == "gguf"  # type: ignore[attr-defined]
            vectors = await old.embeddings.create(model="demo-embed", input=["a", "b"])
            assert [one.index for one in vectors.data] == [0, 1]
        async with openai.AsyncOpenAI(base_url=urls[0], api_key="wrong", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError, match="Invalid LM Studio API token provided"):
                await stranger.models.list()


async def test_anthropic(open_house: OpenHouse) -> None:
    """As Claude Code is told to use it: a token as the Bearer, and models of its own naming."""
    async with (
        open_house() as house,
        anthropic.AsyncAnthropic(base_url=house.url, auth_token="lmstudio", max_retries=0) as claude,
    ):
        with pytest.raises(anthropic.NotFoundError, match=r"The model .claude-opus-4. was not found\."):
            await claude.messages.create(model="claude-opus-4", max_tokens=10, messages=QUESTION)
        for model in ("demo-chat", "claude-opus-4"):
            message = await claude.messages.create(
                model=model, max_tokens=100, messages=QUESTION, extra_body={"temperature": 0}
            )
            assert (message.model, getattr(message.content[-1], "text", None)) == ("demo-chat", ANSWER)
        counted = await claude.messages.count_tokens(model="claude-opus-4", messages=QUESTION)
        assert counted.input_tokens > 5
