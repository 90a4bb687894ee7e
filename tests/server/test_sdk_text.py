"""Tokens, embeddings and templates through LM Studio's sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from doors import open_house
from sdk_talking import asking, dialled, history, named, stack

from llamarunner.config import Door, RateLimits

MODELS: dict[str, dict[str, Any]] = {"chat": {}, "embed": {"architecture": "bert"}}


async def test_tokens(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        for namespace, model in (("llm", "chat"), ("embedding", "embed")):
            async with dialled(house, namespace) as line:
                await line.load(model)
                asked = {"specifier": named(model), "inputString": "abc"}
                assert (await line.rpc("tokenize", asked))["result"] == {"tokens": [97, 98, 99]}
                assert (await line.rpc("countTokens", asked))["result"] == {"tokenCount": 3}
                empty = {"specifier": named(model), "inputString": ""}
                assert (await line.rpc("countTokens", empty))["result"] == {"tokenCount": 0}


async def test_embeddings(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house, dialled(house, "embedding") as line:
        await line.load("embed")
        asked = {"modelSpecifier": named("embed"), "inputString": "abcd"}
        assert (await line.rpc("embedString", asked))["result"] == {"embedding": [0.6, 3.2, 0.0]}
        async with dialled(house, "llm") as other:
            assert "no endpoint" in (await other.rpc("embedString", asked))["error"]["title"]


async def test_a_conversation_as_the_template_writes_it(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    asked = {
        "specifier": named("chat"),
        "history": history("hello"),
        "predictionConfigStack": stack(llm__prediction__systemPrompt="be brief"),
        "opts": {"toolDefinitions": [tool]},
    }
    async with open_house(tmp_path) as house, dialled(house, "llm") as line:
        await line.load("chat")
        told = await line.rpc("applyPromptTemplate", asked)
        assert told["result"] == {"formatted": "<system>be brief<user>hello"}
        assert house.journal("body")[-1]["body"]["tools"] == [tool]


async def test_a_list_of_texts_is_one_request_for_the_limits_and_many_for_the_record(tmp_path: Path) -> None:
    limits = RateLimits(requests_per_minute=3, concurrent_requests=2)
    async with open_house(tmp_path, door=Door(rate_limits=limits)) as house, dialled(house, "llm") as line:
        await line.load("chat")
        asked = {"specifier": named("chat"), "inputString": "abc"}
        with house.services.bus.subscribe({"request.finished"}) as heard:
            await line.send(*(line.call("tokenize", asked) for _ in range(20)))
            answers = [await line.next("rpcResult", "rpcError") for _ in range(20)]
            event: Any = await anext(aiter(heard))
        assert (event.method, event.path, event.model_id) == ("SDK", "/llm/tokenize", "chat")
        assert [answer for answer in answers if "error" in answer] == []
        ends = [(await line.stream("predict", asking()))[1] for _ in range(2)]
        assert [end["type"] for end in ends] == ["channelClose", "channelError"], "after the upgrade and the load"
        assert ends[1]["error"]["suggestion"].startswith("Try again in")
        assert "proxies.lmstudio.rate_limits" in ends[1]["error"]["title"]


async def test_a_process_that_talks_nonsense_is_told_of(tmp_path: Path) -> None:
    script = '["HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}"]'
    async with open_house(tmp_path, program=("scripted_llama.py", script)) as house, dialled(house, "llm") as line:
        async with asyncio.timeout(20):
            await line.load("chat")
        error = (await line.rpc("tokenize", {"specifier": named("chat"), "inputString": "abc"}))["error"]
        assert error["title"] == "The model's process gave no tokens."
