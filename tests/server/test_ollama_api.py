"""Chats and completions in Ollama's language, over real doors and the misbehaving child."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from doors import House, open_house
from yarl import URL

from llamarunner.config import Door, RateLimits

Json = dict[str, Any]
TIMINGS = {"cache_n": 2, "prompt_n": 5, "prompt_ms": 1.5, "predicted_n": 2, "predicted_ms": 2.25}
THINKER = {"metadata": {"tokenizer.chat_template": "{{ tools }}<think></think>"}}
BERT: Json = {"architecture": "bert", "metadata": {"tokenizer.chat_template": None, "bert.pooling_type": 1}}
FIM = {"metadata": {"tokenizer.ggml.fim_pre_token_id": 1}}
MODELS: dict[str, Json] = {"chat": {}, "thinker": THINKER, "embed": BERT, "fim": FIM}
UNLIMITED = {"concurrent_requests": None, "requests_per_minute": None}


def post(house: House, path: str, document: Json | str, door: str = "ollama") -> AbstractAsyncContextManager[Any]:
    data = document if isinstance(document, str) else json.dumps(document)
    return house.client.post(house.urls[door] + path, data=data)  # as curl -d does: with no type of JSON's


async def ask(house: House, path: str, document: Json | str) -> tuple[int, Any]:
    """Ask for an answer in one piece, or an error."""
    async with post(house, path, document) as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        return response.status, await response.json()


async def lines(house: House, path: str, document: Json) -> list[Json]:
    async with post(house, path, document) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "application/x-ndjson")
        text = await response.text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def said(told: Json | str = "hello", model: str = "chat", **more: Any) -> Json:
    """A chat; `told` tells the child what to do."""
    content = told if isinstance(told, str) else json.dumps(told)
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


async def body_of(house: House, path: str) -> Json:
    """What a child was asked last on a path."""
    return next(one["body"] for one in reversed(house.journal("body")) if one["path"] == path)


async def test_a_chat_comes_as_lines_and_whole(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        told = {"tokens": 2, "timings": TIMINGS}
        *tokens, last = await lines(house, "/api/chat", said(told, model="CHAT:latest"))
        status, whole = await ask(house, "/api/chat", said(told, stream=False))
    assert [one["message"] for one in tokens] == [{"role": "assistant", "content": text} for text in ("t0 ", "t1 ")]
    assert [one["done"] for one in (*tokens, last)] == [False, False, True]
    assert {one["model"] for one in (*tokens, last)} == {"CHAT:latest"}
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 3, 2)
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (1_500_000, 2_250_000)
    assert last["total_duration"] > last["load_duration"] > 0
    assert (status, whole["message"]["content"], whole["done"]) == (200, "t0 t1 ", True)
    assert (whole["prompt_eval_count"], whole["eval_count"]) == (7, 2)


async def test_tool_calls_are_objects_in_a_line_of_their_own(tmp_path: Path) -> None:
    pieces = [
        {"index": 0, "id": "x", "function": {"name": "f", "arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    deltas = [{"content": "so"}, *({"tool_calls": [piece]} for piece in pieces)]
    async with open_house(tmp_path, models={"thinker": THINKER}) as house:
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        asked = said({"deltas": deltas}, model="thinker", tools=[tool], think=True, format="json")
        text, calls, last = await lines(house, "/api/chat", asked)
        body = await body_of(house, "/v1/chat/completions")
    assert text["message"]["content"] == "so"
    called = {"id": "x", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
    assert (calls["message"]["tool_calls"], calls["done"]) == ([called], False)
    assert (last["message"], last["done_reason"]) == ({"role": "assistant", "content": ""}, "stop")
    assert body["tools"] == [tool]
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert body["response_format"] == {"type": "json_object"}


async def test_prompts_in_a_template_as_they_stand_around_a_gap_and_continued(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"fim": FIM}) as house:

        async def generate(**more: Any) -> Json:
            status, answer = await ask(house, "/api/generate", {"model": "fim", "stream": False, **more})
            assert status == 200
            assert isinstance(answer, dict)
            return answer

        plain = await generate(prompt="hi", system="be brief")
        assert (await body_of(house, "/v1/chat/completions"))["messages"][0] == {
            "role": "system",
            "content": "be brief",
        }
        tokens = [ord(letter) for letter in "<system>be brief<user>hi" + plain["response"]]
        assert plain["context"] == tokens
        continued = await generate(prompt="on", context=tokens)
        assert (await body_of(house, "/v1/completions"))["prompt"] == [*tokens, "<user>on"]
        assert continued["context"][: len(tokens)] == tokens
        assert (await generate(prompt="hi", raw=True)).get("context") is None
        assert (await body_of(house, "/v1/completions"))["prompt"] == "hi"
        *pieces, last = await lines(house, "/api/generate", {"model": "fim", "prompt": "a", "suffix": "b"})
        asked = await body_of(house, "/infill")
    assert (asked["input_prefix"], asked["input_suffix"]) == ("a", "b")
    assert "".join(one["response"] for one in pieces) == "t0 t1 t2 t3 t4 "
    assert (last["response"], last["done"]) == ("", True)


async def test_an_empty_request_loads_and_unloads(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        status, loaded = await ask(house, "/api/chat", {"model": "chat", "messages": []})
        assert (status, loaded["done"], loaded["done_reason"]) == (200, True, "load")
        assert house.services.supervisor.loaded() == ["chat"]
        assert house.journal("request") == []
        status, unloaded = await ask(house, "/api/generate", {"model": "chat", "prompt": "", "keep_alive": 0})
        assert (status, unloaded["response"], unloaded["done_reason"]) == (200, "", "unload")
        await house.until(lambda: house.services.supervisor.loaded() == [])
        status, unloaded = await ask(house, "/api/chat", {"model": "chat", "keep_alive": "0s"})
        assert (status, unloaded["done_reason"]) == (200, "unload")
        assert len(house.journal("start")) == 1, "to unload what is not loaded loads nothing"


CHAT, GENERATE = "/api/chat", "/api/generate"
HELLO = [{"role": "user", "content": "hello"}]
ERRORS: list[tuple[str, Json | str, int, str]] = [
    *((path, "", 400, "missing request body") for path in (CHAT, GENERATE, "/api/embed", "/api/show")),
    (GENERATE, {}, 404, "model '' not found"),
    (CHAT, {}, 400, "model is required"),
    ("/api/embed", {}, 404, "model '' not found"),
    ("/api/embeddings", {}, 400, "model is required"),
    ("/api/show", {}, 400, "model is required"),
    ("/api/push", {}, 400, "model is required"),
    ("/api/push", {"name": "x"}, 400, "pushing models is not supported by this server"),
    *((path, {"model": "../x"}, 400, "invalid model name") for path in (CHAT, GENERATE, "/api/embed", "/api/show")),
    (GENERATE, {"model": "Nope"}, 404, "model 'Nope' not found"),
    (CHAT, {"model": "Nope:7b", "messages": HELLO}, 404, "model 'Nope:7b' not found"),
    ("/api/show", {"name": "nope"}, 404, "model 'nope:latest' not found"),
    ("/api/embed", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
    ("/api/embeddings", {"model": "nope"}, 404, 'model "nope" not found, try pulling it first'),
    (CHAT, {"model": "nope:cloud"}, 403, "ollama cloud is disabled: remote model is unavailable"),
    ("/api/show", {"model": "nope:7b-cloud"}, 403, "ollama cloud is disabled: remote model details are unavailable"),
    (CHAT, {"model": "a:local:cloud"}, 400, 'use either :local or :cloud, not both: "a:local:cloud"'),
    (CHAT, "hello", 400, "invalid character 'h' looking for beginning of value"),
    (CHAT, {"model": "embed", "messages": HELLO}, 400, '"embed" does not support chat'),
    (GENERATE, {"model": "embed", "prompt": "a"}, 400, '"embed" does not support generate'),
    (CHAT, {"model": "fim", "messages": HELLO, "think": True}, 400, '"fim" does not support thinking'),
    (
        *(CHAT, {"model": "fim", "messages": HELLO, "tools": [{"type": "function"}]}, 400),
        "registry.ollama.ai/library/fim:latest does not support tools",
    ),
    (
        *(GENERATE, {"model": "thinker", "prompt": "a", "suffix": "b"}, 400),
        "registry.ollama.ai/library/thinker:latest does not support insert",
    ),
    *(
        (
            GENERATE,
            {"model": "chat", "raw": True, **more},
            400,
            "raw mode does not support template, system, or context",
        )
        for more in ({"template": "x"}, {"system": "x"}, {"context": [1]})
    ),
    (CHAT, {"model": "chat", "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    (CHAT, {"model": "chat", "keep_alive": "-1"}, 400, 'time: missing unit in duration "-1"'),
    (CHAT, {"model": "chat", "keep_alive": True}, 400, "Unsupported type: 'bool'"),
    (
        *(CHAT, {"model": "chat", "think": "x"}, 400),
        'invalid think value: "x" (must be "high", "medium", "low", "max", true, or false)',
    ),
    (
        *(CHAT, {"model": "chat", "messages": "hello"}, 400),
        "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
    ),
    (
        *(CHAT, {"model": "chat", "messages": [{"images": ["data:image/png;base64,AAAA"]}]}, 400),
        "illegal base64 data at input byte 4",
    ),
    (CHAT, {"model": "chat", "options": {"num_ctx": "x"}}, 500, 'option "num_ctx" must be of type integer'),
    (CHAT, {"model": "chat", "options": {"main_gpu": 99999}}, 500, 'option "main_gpu" is out of range'),
    (
        *(CHAT, {"model": "chat", "format": "xml", "messages": HELLO}, 500),
        'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
    ),
    ("/api/embed", {"model": "embed", "input": [1]}, 400, "invalid input type"),
    ("/api/embed", {"model": "embed", "input": {}}, 400, "invalid input type"),
    ("/api/experimental/web_search", {}, 403, "ollama cloud is disabled: web search is unavailable"),
]


async def test_every_mistake_is_told_in_ollamas_words(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        told = [(path, asked, *await ask(house, path, asked)) for path, asked, _, _ in ERRORS]
        assert house.journal("start") == [], "a mistake loads nothing"
    assert told == [(path, asked, status, {"error": text}) for path, asked, status, text in ERRORS]


async def test_what_is_not_there(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for method, path, status, text in (
            ("GET", "/api/nothing", 404, "404 page not found"),
            ("GET", "/metrics/more", 404, "404 page not found"),
            ("GET", "/api/chat", 405, "405 method not allowed"),
            ("POST", "/api/tags", 405, "405 method not allowed"),
        ):
            async with house.client.request(method, house.urls["ollama"] + path) as response:
                assert (response.status, await response.text(), response.content_type) == (status, text, "text/plain")
        async with post(house, "/api/chat", said(), door="lmstudio") as response:
            assert response.status == 404
            assert (await response.json())["error"] == "Unexpected endpoint or method. (POST /api/chat)"


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("HEAD", "/api//version//", 301, "/api/version"),
        ("POST", "/api/chat/?a=b//c/", 307, "/api/chat?a=b//c/"),
        ("DELETE", "/api/delete/", 307, "/api/delete"),
        ("POST", "/v1//chat/completions/", 307, "/v1/chat/completions"),
        ("GET", "/v1/models/", 301, "/v1/models"),
        ("GET", "/api/chat/", 404, None),
        ("GET", "/api/nothing/", 404, None),
        ("GET", "/api//../%2f%2fexample.com/", 404, None),
    ],
)
async def test_too_many_slashes_lead_to_the_path_that_is_meant(
    tmp_path: Path, method: str, path: str, status: int, location: str | None
) -> None:
    async with open_house(tmp_path) as house:
        url = URL(house.urls["ollama"] + path, encoded=True)
        async with house.client.request(method, url, allow_redirects=False) as response:
            assert (response.status, response.headers.get("Location")) == (status, location)
        async with house.client.request("GET", house.urls["lmstudio"] + "/health/", allow_redirects=False) as response:
            assert response.status == 404, "this is Ollama's way"


async def test_a_redirected_chat_is_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        assert (await ask(house, CHAT + "/", said(stream=False)))[1]["done"] is True


async def test_a_full_queue_is_told_in_ollamas_words(tmp_path: Path) -> None:
    async with open_house(tmp_path, supervisor={"queue_length": 1}, flags=("--fake-never",)) as house:
        waiting = asyncio.ensure_future(ask(house, CHAT, said()))  # noqa: TID251
        await house.until(lambda: house.leases() == 1)
        status, answer = await ask(house, CHAT, said())
        assert (status, answer) == (
            503,
            {"error": "server busy, please try again.  maximum pending requests exceeded"},
        )
        waiting.cancel()


async def test_a_refusal_before_the_first_line_has_its_status(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        assert await ask(house, CHAT, said({"status": 400})) == (400, {"error": "as you wish"})
        status, answer = await ask(house, CHAT, said({"tokens": 0, "then": "reset"}))
        assert status == 500
        assert answer["error"].startswith("model runner has unexpectedly stopped")


async def test_a_failure_in_the_middle_is_the_last_line(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for end in ("reset", "stop", "die"):
            first, last = await lines(house, CHAT, said({"tokens": 1, "then": end}))
            assert first["message"]["content"] == "t0 "
            assert list(last) == ["error"]
            assert last["error"].startswith("an error was encountered while running the model: The model 'chat'")
        assert house.leases() == 0


async def test_silence_in_the_middle_is_told_too_and_nothing_fills_it(tmp_path: Path) -> None:
    limits = {"token_seconds": 0.3, "sse_keepalive_seconds": 0.05}
    async with open_house(tmp_path, server=limits) as house:
        told = await lines(house, CHAT, said({"tokens": 1, "then": "hang"}))
    assert [list(one) for one in told] == [["model", "created_at", "message", "done"], ["error"]]
    assert "fell silent" in told[1]["error"]


async def test_when_the_server_stops_the_stream_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        asked = asyncio.ensure_future(lines(house, CHAT, said({"tokens": 1, "then": "hang"})))  # noqa: TID251
        await house.wait_for("token")
        house.services.drain.begin()
        house.services.drain.expire()
        assert (await asked)[-1] == {"error": "The server is shutting down."}
        assert (await ask(house, CHAT, said()))[0] == 503


async def test_a_hang_up_stops_the_model(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with post(house, CHAT, said({"tokens": 10_000, "delay": 0.01})) as response:
            await response.content.readline()
            response.close()
        await house.wait_for("hangup")
        assert house.leases() == 0
        asking = house.client.post(
            house.urls["ollama"] + CHAT,
            json=said({"prefill": 60}, stream=False),
            timeout=aiohttp.ClientTimeout(total=0.2),
        )
        with pytest.raises(TimeoutError):
            await asking
        await house.wait_for("hangup", 2)
        await house.until(lambda: house.leases() == 0)


async def test_streams_have_their_limit(tmp_path: Path) -> None:
    door = Door(rate_limits=RateLimits(streaming_connections=1, **UNLIMITED))
    async with (
        open_house(tmp_path, door=door) as house,
        post(house, CHAT, said({"tokens": 10_000, "delay": 0.01})) as response,
    ):
        await response.content.readline()
        status, answer = await ask(house, CHAT, said())
        assert (status, list(answer)) == (429, ["error"])
        assert (await ask(house, CHAT, said(stream=False)))[0] == 200
        response.close()


async def test_a_chat_that_is_too_long_loses_its_oldest_messages(tmp_path: Path) -> None:
    long = [{"role": "system", "content": "s"}, *({"role": "user", "content": f"{n}" * 100} for n in range(9))]
    async with open_house(tmp_path, models={"chat": {}}, defaults={"ctx_size": 300}) as house:
        async with post(house, CHAT, {"model": "chat", "messages": long}) as response:
            assert response.status == 200
            dropped = int(response.headers["X-Dropped-Messages"])
            assert b'"done":true' in await response.read()
        kept = (await body_of(house, "/v1/chat/completions"))["messages"]
        assert (dropped, kept) == (7, [long[0], *long[8:]])
        too_long = "the prompt is longer than the context length currently available to the model"
        for asked in (
            {"model": "chat", "messages": long, "truncate": False},
            {"model": "chat", "messages": [{"role": "user", "content": "x" * 301}]},
        ):
            status, answer = await ask(house, CHAT, asked)
            assert (status, answer["error"].startswith(too_long)) == (400, True)


async def test_the_prompt_is_logged_for_owners_who_want_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_house(tmp_path, logging={"prompts": True}) as house:
        with caplog.at_level("INFO", "llamarunner"):
            await lines(house, CHAT, said({"tokens": 2, "timings": TIMINGS}))
    (prompt,) = (one for one in caplog.records if one.name == "llamarunner.prompts")
    assert "tokens" in prompt.getMessage()
    (told,) = (one.fields for one in caplog.records if one.name == "llamarunner.access")  # type: ignore[attr-defined]
    assert (told["dialect"], told["model"], told["stream"]) == ("ollama", "chat", True)
    assert (told["prompt_tokens"], told["completion_tokens"]) == (3, 2)
    assert told["first_token_ms"] > 0


EVIL = [
    "..",
    "../../etc/passwd",
    "%2e%2e/x",
    "a\0b",
    "a\\..\\b",
    "/etc/passwd",
    "x" * 300,
    "．．/x",
    "a.",
    "a/",
    ":",
    "*",
]


async def test_s01_no_name_leads_anywhere(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for path in (CHAT, GENERATE, "/api/embed", "/api/embeddings", "/api/show"):
            for name in EVIL:
                status, answer = await ask(house, path, {"model": name, "messages": HELLO, "prompt": "a", "input": "a"})
                assert status in (400, 404), (path, name, answer)


@pytest.mark.parametrize("name", ["library/chat", "registry.ollama.ai/library/chat:latest", "Chat", "chat:local"])
async def test_longer_forms_of_a_name(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path) as house:
        assert (await ask(house, CHAT, {"model": name, "messages": []}))[1]["model"] == name
        async with post(house, "/v1/chat/completions", said(model=name)) as response:
            assert response.status == 200
        async with post(house, "/v1/embeddings", {"model": name, "input": "hello"}, door="lmstudio") as response:
            assert response.status == (200 if name == "Chat" else 404)
