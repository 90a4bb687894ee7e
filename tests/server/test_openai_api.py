"""The paths of models, from the outside: which model is meant, what it is asked, and the lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from yarl import URL

from llamarunner.config import Door
from llamarunner.server import anthropic_api, openai_api
from tests.programs.write_gguf import write_model, write_projector

BERT: dict[str, Any] = {"architecture": "bert", "metadata": {"tokenizer.chat_template": None, "bert.pooling_type": 1}}
RERANKER: dict[str, Any] = {
    "architecture": "bert",
    "metadata": {"tokenizer.chat_template": None, "bert.pooling_type": 4},
}
MANY: dict[str, dict[str, Any]] = {"chat": {}, "Other-Chat": {}, "embed": BERT, "rank": RERANKER}


HELLO = [{"role": "user", "content": "hello"}]


async def asked(house: House, path: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with house.post(path, document) as response:
        return response.status, await response.json()


async def test_a_chat_is_answered_in_one_piece(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.chat() as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        answer = await response.json()
        assert answer["model"] == "chat"
        assert answer["choices"][0]["message"]["content"] == "t0 t1 t2 t3 t4 "


async def test_a_stream_passes_as_bytes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.chat(stream=True) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-cache"
        events = (await response.text()).split("\n\n")
        deltas = [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events[:5]]
        assert deltas == ["t0 ", "t1 ", "t2 ", "t3 ", "t4 "]
        assert events[5:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("path", [*openai_api.PATHS, *anthropic_api.PATHS])
async def test_every_path_reaches_a_model_on_both_doors(tmp_path: Path, path: str) -> None:
    model = {"/v1/embeddings": "embed", "/v1/rerank": "rank", "/v1/reranking": "rank", "/rerank": "rank"}.get(
        path, "chat"
    )
    async with open_house(tmp_path, models=MANY) as house:
        for url in house.urls.values():
            body = {"model": model, "stream": False, "messages": [{"role": "user", "content": "hello"}]}
            async with house.client.post(url + path, json=body) as response:
                assert response.status == 200
        upstream = "/v1/rerank" if "rerank" in path else path
        assert [(request["path"], request["model"]) for request in house.journal("request")] == [(upstream, model)] * 2


@pytest.mark.parametrize("path", ["/v1/v1/chat/completions", "/v1/v1/messages"])
async def test_a_base_url_that_ends_in_v1_may_be_given_to_a_client_that_adds_it(tmp_path: Path, path: str) -> None:
    async with open_house(tmp_path) as house:
        for url in house.urls.values():
            async with house.client.post(url + path, json={"model": "chat", "messages": HELLO}) as response:
                assert response.status == 200
            async with house.client.post(url + path, json={"model": "chat"}) as response:
                answer = await response.json()
                assert (response.status, answer.get("type")) == (400, "error" if "messages" in path else None)
        assert {f"/v1{request['path']}" for request in house.journal("request")} == {path}


async def test_a_path_that_cannot_stream_is_answered_in_one_piece(tmp_path: Path) -> None:
    often = {"sse_keepalive_seconds": 0.05}
    async with open_house(tmp_path, models={"embed": BERT}, server=often) as house:
        asking = house.post("/v1/embeddings", {"stream": True, "fake": {"prefill": 0.2}})
        async with asking as response:
            assert ": keep-alive" not in await response.text()


@pytest.mark.parametrize("name", ["other-chat", "OTHER-CHAT", "other-chat:latest", "Other-Chat.gguf"])
async def test_any_of_its_names_finds_a_model_and_the_answer_has_its_id(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path, models=MANY) as house:
        model_id = house.services.catalog.find("other-chat").id
        status, answer = await asked(house, "/v1/chat/completions", {"model": name, "messages": HELLO})
        assert (status, answer["model"]) == (200, model_id)


async def test_a_body_with_the_right_name_passes_untouched_and_another_keeps_its_values(tmp_path: Path) -> None:
    """The child journals the length of what it got."""
    talk = '"messages":[{"role":"user"}]'
    odd = f'{{ "model":"chat" ,{talk},"a":1.0,"b":[1e3,"\\u00e9 é"],\t"c":null}}'.encode()
    renamed = odd.replace(b'"chat"', b'"CHAT"')
    async with open_house(tmp_path) as house:
        for body in (odd, renamed):
            async with house.client.post(house.url + "/v1/chat/completions", data=body) as response:
                assert response.status == 200
        lengths = [int(request["headers"]["Content-Length"]) for request in house.journal("request")]
        assert lengths[0] == len(odd)
        assert lengths[1] == len(f'{{"model":"chat",{talk},"a":1.0,"b":[1000.0,"é é"],"c":null}}'.encode())


async def test_without_a_name_the_only_model_is_meant(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}, "embed": BERT}) as house:
        for document in ({}, {"model": None}, {"model": ""}):
            status, answer = await asked(house, "/v1/chat/completions", {**document, "messages": HELLO})
            assert (status, answer["model"]) == (200, "chat")


async def test_without_a_name_the_only_loaded_model_is_meant(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MANY) as house:
        status, answer = await asked(house, "/v1/chat/completions", {"messages": HELLO})
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")
        assert "chat, other-chat" in answer["error"]["message"].casefold()
        await asked(house, "/v1/chat/completions", {"model": "chat", "messages": HELLO})
        status, answer = await asked(house, "/v1/chat/completions", {"messages": HELLO})
        assert (status, answer["model"]) == (200, "chat")


async def test_without_a_name_a_model_made_for_just_this_is_meant(tmp_path: Path) -> None:
    """A chat model can embed as well, and one with a projector can chat."""
    write_model(tmp_path / "models" / "eyes" / "eyes.gguf")
    write_projector(tmp_path / "models" / "eyes" / "mmproj-eyes.gguf")
    async with open_house(tmp_path, models={"chat": {}, "embed": BERT}) as house:
        assert len(house.services.catalog.entries) == 3
        for path, model in (("/v1/chat/completions", "chat"), ("/v1/embeddings", "embed")) * 2:
            status, answer = await asked(house, path, {"input": "a", "messages": HELLO})
            assert (status, answer["model"]) == (200, model)


async def test_an_unknown_name_is_404_even_if_one_model_is_loaded(tmp_path: Path) -> None:
    """On Ollama's door; LM Studio has another way."""
    async with open_house(tmp_path) as house:
        house.urls["lmstudio"] = house.urls["ollama"]
        await asked(house, "/v1/chat/completions", {"messages": HELLO})
        for name in ("nobody", "../chat", "chat\0", "\u0441hat", "x" * 5000):
            status, answer = await asked(house, "/v1/chat/completions", {"model": name, "messages": HELLO})
            assert (status, answer["error"]["code"]) == (404, "model_not_found")
            assert len(answer["error"]["message"]) < 400


@pytest.mark.parametrize(
    ("path", "model"), [("/v1/chat/completions", "embed"), ("/v1/rerank", "chat"), ("/v1/messages", "rank")]
)
async def test_a_model_that_cannot_do_it_is_400_and_not_started(tmp_path: Path, path: str, model: str) -> None:
    async with open_house(tmp_path, models=MANY) as house:
        status, answer = await asked(house, path, {"model": model})
        assert status == 400
        assert f"'{model}' cannot" in answer["error"]["message"]
        assert answer["error"]["param"] == "model"
        assert house.journal("start") == []


async def test_a_chat_model_makes_embeddings_in_a_process_of_its_own(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/chat/completions", "/v1/embeddings"):
            status, _ = await asked(house, path, {"model": "chat", "messages": HELLO, "input": "a"})
            assert status == 200
        assert len(house.journal("start")) == 2


async def test_a_broken_file_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    async with open_house(tmp_path) as house:
        status, answer = await asked(house, "/v1/chat/completions", {"model": "broken"})
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "model_not_loaded", "model")
        assert "'broken' cannot be used: " in answer["error"]["message"]
        async with house.client.get(house.url + "/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["chat"]


async def test_the_list_of_models(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MANY) as house:
        await asked(house, "/v1/chat/completions", {"model": "chat", "messages": HELLO})
        async with house.client.get(house.url + "/v1/models") as response:
            assert response.status == 200
            listed = await response.json()
        assert listed["object"] == "list"
        models = {model["id"]: model for model in listed["data"]}
        assert {name.casefold() for name in models} == {"chat", "other-chat", "embed", "rank"}
        assert {(model["object"], model["owned_by"]) for model in models.values()} == {("model", "llama-runner")}
        assert all(type(model["created"]) is int for model in models.values())
        assert (models["chat"]["status"], models["embed"]["status"]) == ("loaded", "unloaded")
        assert "embedding" in models["embed"]["capabilities"]
        assert str(tmp_path) not in json.dumps(listed)
        async with house.client.head(house.url + "/v1/models") as response:
            assert response.status == 200


async def test_one_model_is_retrieved_by_any_of_its_names(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for name in ("chat", "CHAT", "chat:latest"):
            async with house.client.get(f"{house.url}/v1/models/{name}") as response:
                assert (response.status, (await response.json())["id"]) == (200, "chat")
        for name in ("nobody", "a/b/c", "a%2Fb", "..%2fchat"):
            async with house.client.get(f"{house.url}/v1/models/{name}") as response:
                assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["someone/chat", "someone%2Fchat"])
async def test_ids_with_slashes(tmp_path: Path, path: str) -> None:
    """In clear and percent-encoded, as the official clients send them."""
    async with open_house(tmp_path, models={"someone/repository/chat": {}}) as house:
        url = URL(f"{house.url}/v1/models/{path}", encoded=True)
        async with house.client.get(url) as response:
            body = await response.json()
            assert response.status == 200, body


async def test_anthropics_clients_get_their_own_lists(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        headers = {"anthropic-version": "2023-06-01"}
        async with house.client.get(house.url + "/v1/models", headers=headers) as response:
            listed = await response.json()
        assert (listed["has_more"], listed["first_id"], listed["data"][0]["type"]) == (False, "chat", "model")
        async with house.client.get(house.url + "/v1/models/chat", headers=headers) as response:
            assert (await response.json())["display_name"] == "chat"
        async with house.client.get(house.url + "/v1/models/nobody", headers=headers) as response:
            assert (response.status, (await response.json())["error"]["type"]) == (404, "not_found_error")


async def test_a_door_shows_only_its_models(tmp_path: Path) -> None:
    async with open_house(tmp_path, models=MANY, door=Door(models=("*CHAT",))) as house:
        async with house.client.get(house.url + "/v1/models") as response:
            listed = [model["id"].casefold() for model in (await response.json())["data"]]
        assert listed == ["chat", "other-chat"]
        status, answer = await asked(house, "/v1/embeddings", {"model": "embed", "input": "a"})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        assert "embed" not in answer["error"]["message"].replace("'embed'", "").replace('"embed"', "")
        async with house.client.get(house.url + "/v1/models/embed") as response:
            assert response.status == 404
