"""LM Studio's lists of models, byte for byte, and loading and unloading instances, through a real door."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, Door

Json = dict[str, Any]
BERT = {"architecture": "bert", "metadata": {"bert.context_length": 512, "bert.pooling_type": 1}}
MIXTURE = {
    "architecture": "qwen3moe",
    "metadata": {
        "general.name": "Mix",
        "general.size_label": "30B-A3B",
        "general.file_type": 15,
        "qwen3moe.expert_count": 8,
        "qwen3moe.expert_used_count": 2,
        "tokenizer.chat_template": "{{ tools }}<think></think>",
    },
}
MODELS: dict[str, dict[str, Any]] = {"chat": {}, "embed": BERT, "maker/repo/mix": MIXTURE}
HELLO = [{"role": "user", "content": "hello"}]


async def ask(house: House, method: str, path: str, document: object = None) -> tuple[int, str]:
    data = None if document is None else json.dumps(document)
    async with house.client.request(method, house.url + path, data=data) as response:
        assert response.content_type == "application/json"
        return response.status, await response.text()


async def load(house: House, model: str, **more: object) -> Json:
    status, answer = await ask(house, "POST", "/api/v1/models/load", {"model": model, **more})
    assert status == 200, answer
    return dict(json.loads(answer))


async def chat(house: House, model: str, **more: object) -> Json:
    async with house.post("/v1/chat/completions", {"model": model, "messages": HELLO, **more}) as response:
        assert response.status == 200, await response.text()
        return dict(await response.json())


async def instances(house: House, key: str = "chat") -> list[str]:
    _, answer = await ask(house, "GET", "/api/v1/models")
    return next(
        [one["id"] for one in model["loaded_instances"]]
        for model in json.loads(answer)["models"]
        if model["key"] == key
    )


async def test_models_of_v1_are_told_with_their_instances(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        sizes = {entry.id: entry.size for entry in house.services.catalog.entries}
        await load(house, "mix", context_length=2048)
        status, answer = await ask(house, "GET", "/api/v1/models")
    assert status == 200
    for known, (_, size) in zip((1001, 1002, 1003), sorted(sizes.items()), strict=True):
        answer = answer.replace(f'"size_bytes":{size},', f'"size_bytes":{known},', 1)
    assert answer == (
        '{"models":['
        '{"type":"llm","publisher":"local","key":"chat","display_name":"chat","architecture":"llama",'
        '"quantization":{"name":"F32","bits_per_weight":32},"size_bytes":1001,"params_string":null,'
        '"loaded_instances":[],"max_context_length":4096,"format":"gguf",'
        '"capabilities":{"vision":false,"trained_for_tool_use":false},"description":null},'
        '{"type":"embedding","publisher":"local","key":"embed","display_name":"embed",'
        '"quantization":{"name":"F32","bits_per_weight":32},"size_bytes":1002,"params_string":null,'
        '"loaded_instances":[],"max_context_length":512,"format":"gguf"},'
        '{"type":"llm","publisher":"maker","key":"mix","display_name":"Mix","architecture":"qwen3moe",'
        '"quantization":{"name":"Q4_K_M","bits_per_weight":4},"size_bytes":1003,"params_string":"30B-A3B",'
        '"loaded_instances":[{"id":"mix","config":{"context_length":2048,"eval_batch_size":2048,"parallel":4,'
        '"flash_attention":true,"num_experts":2,"offload_kv_cache_to_gpu":true}}],'
        '"max_context_length":4096,"format":"gguf",'
        '"capabilities":{"vision":false,"trained_for_tool_use":true,'
        '"reasoning":{"allowed_options":["off","on"],"default":"on"}},"description":null}]}'
    )


async def test_models_of_v0_are_told_each_with_its_state(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        await load(house, "chat")
        await load(house, "chat", context_length=1024)
        _, answer = await ask(house, "GET", "/api/v0/models")
        one = await ask(house, "GET", "/api/v0/models/chat:2")
        by_path = await ask(house, "GET", "/api/v0/models/maker/repo")
        unknown = await ask(house, "GET", "/api/v0/models/maker/nothing")
    first = (
        '{"id":"chat","object":"model","type":"llm","publisher":"local","arch":"llama","compatibility_type":"gguf",'
        '"quantization":"F32","state":"loaded","max_context_length":4096,"loaded_context_length":4096}'
    )
    second = first.replace('"chat"', '"chat:2"').replace('_length":4096}', '_length":1024}')
    mix = (
        '{"id":"mix","object":"model","type":"llm","publisher":"maker","arch":"qwen3moe","compatibility_type":"gguf",'
        '"quantization":"Q4_K_M","state":"not-loaded","max_context_length":4096,"capabilities":["tool_use"]}'
    )
    embed = (
        '{"id":"embed","object":"model","type":"embeddings","publisher":"local","arch":"bert",'
        '"compatibility_type":"gguf","quantization":"F32","state":"not-loaded","max_context_length":512}'
    )
    assert answer == f'{{"data":[{first},{second},{embed},{mix}],"object":"list"}}'
    assert one == (200, second)
    assert by_path == (200, mix)
    assert unknown[0] in (400, 404)
    assert json.loads(unknown[1])["error"]["code"] == "model_not_found"


async def test_a_load_answers_when_the_instance_is_ready_and_each_makes_one_more(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MODELS) as house:
        _, plain = await ask(house, "POST", "/api/v1/models/load", {"model": "CHAT"})
        wanted = {
            **{"model": "mix", "context_length": 3000, "eval_batch_size": 512, "flash_attention": False},
            **{"num_experts": 4, "offload_kv_cache_to_gpu": False, "echo_load_config": True},
        }
        _, echoed = await ask(house, "POST", "/api/v1/models/load", wanted)
        _, embed = await ask(house, "POST", "/api/v1/models/load", {**wanted, "model": "embed"})
        mix = next(one for one in house.services.supervisor.ready() if one.entry.id == "mix")
    assert re.sub(r"\d+\.\d+", "0.1", plain) == (
        '{"type":"llm","instance_id":"chat","load_time_seconds":0.1,"status":"loaded"}'
    )
    assert re.sub(r"\d+\.\d+", "0.1", echoed) == (
        '{"type":"llm","instance_id":"mix","load_time_seconds":0.1,"status":"loaded","load_config":'
        '{"context_length":3000,"eval_batch_size":512,"flash_attention":false,"offload_kv_cache_to_gpu":false,'
        '"num_experts":4}}'
    )
    assert re.sub(r"\d+\.\d+", "0.1", embed) == (
        '{"type":"embedding","instance_id":"embed","load_time_seconds":0.1,"status":"loaded",'
        '"load_config":{"context_length":512}}'
    )
    assert mix.settings.override_kv == ("qwen3moe.expert_used_count=int:4",)


async def test_each_instance_answers_to_its_own_id_in_every_dialect(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        loads = await asyncio.gather(*(load(house, "chat") for _ in range(3)))
        assert sorted(one["instance_id"] for one in loads) == ["chat", "chat:2", "chat:3"]
        ports = {one.entry.instance_id: one.endpoint for one in house.services.supervisor.ready()}
        assert len(set(ports.values())) == 3
        assert (await chat(house, "chat:2"))["model"] == "chat:2"
        message = {"model": "chat:3", "max_tokens": 9, "messages": HELLO}
        async with house.post("/v1/messages", message) as response:
            assert (response.status, (await response.json())["model"]) == (200, "chat:3")
        talk = {"model": "chat:2", "messages": HELLO, "stream": False}
        async with house.client.post(house.urls["ollama"] + "/api/chat", json=talk) as response:
            assert (response.status, (await response.json())["model"]) == (200, "chat:2")
        used = {
            one.entry.instance
            for one in house.services.supervisor.ready()
            if house.services.supervisor.last_used(one.entry)
        }
        assert used == {2, 3}
        async with house.post("/v1/chat/completions", {"model": "CHAT:2", "messages": HELLO}) as response:
            assert (await response.json()).get("model") != "chat:2", "ids of instances are told apart by case"


async def test_what_is_loaded_is_told_alike_everywhere(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for _ in range(2):
            await load(house, "chat")
        status, _ = await ask(house, "POST", "/api/v1/models/unload", {"instance_id": "chat"})
        assert status == 200
        assert await instances(house) == ["chat:2"]
        async with house.client.get(house.urls["ollama"] + "/api/ps") as response:
            assert [one["name"] for one in (await response.json())["models"]] == ["chat:2"]
        async with house.client.get(house.url + "/v1/models/chat/status") as response:
            told = await response.json()
            assert (told["status"], told["memory_usage"] > 0) == ("loaded", True)
        async with house.client.get(house.url + "/v1/models") as response:
            states = {one["id"]: one.get("status") for one in (await response.json())["data"]}
        _, v0 = await ask(house, "GET", "/api/v0/models")
        assert {one["id"]: one["state"] for one in json.loads(v0)["data"]} == {"chat": "not-loaded", "chat:2": "loaded"}
        assert states["chat"] == "loaded", "the model is, by its second instance"
        assert (await chat(house, "chat"))["model"] == "chat:2", "it serves those who name the model"
        await load(house, "chat")
        await load(house, "chat")
        await ask(house, "POST", "/api/v1/models/unload", {"instance_id": "chat"})
        assert await instances(house) == ["chat:2", "chat:3"]
        async with house.client.post(house.urls["ollama"] + "/v1/models/chat/stop") as response:
            assert response.status == 200
        assert await instances(house) == []
        assert house.services.supervisor.ready() == []


@pytest.mark.parametrize(("name", "left"), [("chat", []), ("chat:2", ["chat:3"])])
async def test_ollamas_clients_unload_a_model_or_an_instance(tmp_path: Path, name: str, left: list[str]) -> None:
    async with open_house(tmp_path) as house:
        await asyncio.gather(*(load(house, "chat") for _ in range(3)))
        await ask(house, "POST", "/api/v1/models/unload", {"instance_id": "chat"})
        asked = {"model": name, "keep_alive": 0}
        async with house.client.post(house.urls["ollama"] + "/api/generate", json=asked) as response:
            assert response.status == 200
        entry = house.services.catalog.find("chat")
        await house.until(lambda: len(house.services.supervisor.instances(entry, leaving=True)) == len(left))
        assert await instances(house) == left


async def test_stop_of_one_instance_leaves_the_others(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for _ in range(2):
            await load(house, "chat")
        async with house.post("/v1/models/chat:2/stop", {}) as response:
            assert response.status == 200
        assert await instances(house) == ["chat"]


@pytest.mark.parametrize(
    ("path", "body", "status", "answer"),
    [
        (
            "load",
            '{"model":"chat","ttl":5,"parallel":2}',
            400,
            '{"error":{"message":"Unrecognized key(s) in object: \'ttl\', \'parallel\'","type":"invalid_request",'
            '"code":"unrecognized_keys"}}',
        ),
        (
            "load",
            "{}",
            400,
            '{"error":{"message":"\\"model\\" is required","type":"invalid_request","param":"model",'
            '"code":"missing_required_parameter"}}',
        ),
        (
            "load",
            '{"model":"nothing"}',
            404,
            '{"error":{"message":"Invalid model identifier \\"nothing\\". Please specify a valid downloaded model '
            '(e.g., chat, embed, mix).","type":"model_not_found","param":"model","code":"model_not_found"}}',
        ),
        (
            "load",
            '{"model":"chat","context_length":"big"}',
            400,
            '{"error":{"message":"\'context_length\' is wrong: input should be a valid integer.",'
            '"type":"invalid_request","param":"context_length","code":"invalid_type"}}',
        ),
        (
            "load",
            '{"model":"mix","num_experts":9}',
            400,
            '{"error":{"message":"\'num_experts\' is wrong: the model has 8 experts.","type":"invalid_request",'
            '"param":"num_experts","code":"invalid_value"}}',
        ),
        (
            "unload",
            '{"instance_id":"chat"}',
            404,
            '{"error":{"message":"Invalid model identifier \\"chat\\". Please specify a valid downloaded model.",'
            '"type":"model_not_found","param":"model","code":"model_not_found"}}',
        ),
    ],
    ids=["unknown-keys", "no-model", "unknown-model", "wrong-type", "too-many-experts", "not-loaded"],
)
async def test_mistakes_are_told_in_lm_studios_words(
    tmp_path: Path, path: str, body: str, status: int, answer: str
) -> None:
    async with (
        open_house(tmp_path, models=MODELS) as house,
        house.client.post(house.url + f"/api/v1/models/{path}", data=body) as response,
    ):
        assert (response.status, await response.text()) == (status, answer)


async def test_who_may_not_manage_can_list_and_not_load(tmp_path: Path) -> None:
    shut = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path, door=shut) as house:
        assert await instances(house) == []
        for path, body in (("load", {"model": "chat"}), ("unload", {"instance_id": "chat"})):
            status, answer = await ask(house, "POST", f"/api/v1/models/{path}", body)
            assert (status, json.loads(answer)["error"]["type"]) == (403, "invalid_request")


async def test_a_load_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    once = str(tmp_path / "failed")
    async with open_house(tmp_path, flags=("--fake-exit", "3", "--fake-once", once)) as house:
        status, answer = await ask(house, "POST", "/api/v1/models/load", {"model": "chat"})
        error = json.loads(answer)["error"]
        assert status >= 500
        assert error["type"] == "internal_error"
        assert error["message"].startswith('Failed to load model "chat". Error: ')
        assert await instances(house) == []
        await chat(house, "chat")
        unit = house.services.supervisor.unit(house.services.catalog.find("chat"))
        assert unit is not None
        assert unit.expires is not None, "it is one that a request has loaded"


async def test_a_client_that_leaves_before_its_instance_is_ready_has_loaded_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.3")) as house:
        entry = house.services.catalog.find("chat")
        await asyncio.gather(load(house, "chat"), load(house, "chat"))
        await ask(house, "POST", "/api/v1/models/unload", {"instance_id": "chat"})
        asking = asyncio.ensure_future(load(house, "chat"))  # noqa: TID251
        await house.until(lambda: house.services.supervisor.instances(entry) == [1, 2])
        _, answer = await ask(house, "GET", "/api/v0/models/chat")
        assert json.loads(answer)["state"] == "loading"
        asking.cancel()
        await house.until(lambda: house.services.supervisor.instances(entry, leaving=True) == [2])
        assert await instances(house) == ["chat:2"]


async def test_a_loaded_instance_makes_way_for_no_request(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "one": {}, "two": {}}
    async with open_house(tmp_path, models=models, supervisor={"max_loaded_models": 2}) as house:
        await load(house, "chat")
        for model in ("one", "two", "one"):
            await chat(house, model)
        assert sorted(house.services.supervisor.loaded()) == ["chat", "one"]
        await load(house, "two")
        async with house.post("/v1/chat/completions", {"model": "one", "messages": HELLO}) as response:
            assert response.status == 503
        async with house.post("/api/v1/models/load", {"model": "one"}) as response:
            assert (response.status, response.headers.get("Retry-After")) == (503, None)
            assert "supervisor.max_loaded_models" in (await response.json())["error"]["message"]
        assert sorted(house.services.supervisor.loaded()) == ["chat", "two"]


async def test_if_so_set_a_model_that_a_request_loads_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "one": {}, "two": {}}
    async with open_house(tmp_path, models=models, supervisor={"only_last_jit_model": True}) as house:
        await load(house, "chat")
        for model in ("one", "two"):
            await chat(house, model)
            assert sorted(house.services.supervisor.loaded()) == ["chat", model]


@pytest.mark.parametrize(
    ("path", "ttl", "told"),
    [
        ("/v1/chat/completions", 7, 7),
        ("/v1/chat/completions", "abc", 3600),
        ("/v1/chat/completions", -5, 3600),
        ("/api/v0/chat/completions", 7.5, 7.5),
        ("/v1/responses", 7, 3600),
    ],
)
async def test_time_to_live_of_a_request(tmp_path: Path, path: str, ttl: object, told: float) -> None:
    async with open_house(tmp_path) as house:
        for seconds in (ttl, 9):
            body = {"model": "chat", "messages": HELLO, "input": "hello", "ttl": seconds}
            async with house.post(path, body) as response:
                await response.read()
            unit = house.services.supervisor.unit(house.services.catalog.find("chat"))
            assert unit is not None
            assert unit.terms.ttl == told


async def test_an_id_that_is_another_models_name_is_given_to_no_instance(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}, "other": {}}) as house:
        settings = house.services.settings
        named = settings.catalog.model_copy(update={"aliases": {"chat:2": "other"}})
        house.services.catalog.configure(settings.model_copy(update={"catalog": named}))
        ids = [(await load(house, "chat"))["instance_id"] for _ in range(2)]
        assert ids == ["chat", "chat:3"]
        assert (await chat(house, "chat:2"))["model"] == "other"
