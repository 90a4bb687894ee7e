"""Which model is meant on LM Studio's door, and who answers for a name that nobody has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import Door
from llamarunner.server.lmstudio_resolve import find
from tests.server.test_keys import bearing, door
from tests.server.test_openai_api import BERT, MANY

HELLO: list[dict[str, str]] = [{"role": "user", "content": "hello"}]
V1, V0 = "/v1/chat/completions", "/api/v0/chat/completions"


async def ask(house: House, model: Any = None, path: str = V1, **options: Any) -> tuple[int, Any]:
    document = {"messages": HELLO, "input": "hello", **({} if model is None else {"model": model})}
    async with house.post(path, document, **options) as response:
        return response.status, await response.json()


@pytest.fixture
async def house(tmp_path: Path) -> Any:
    async with open_house(tmp_path, models=MANY) as house:
        yield house


@pytest.mark.parametrize("path", [V1, V0, "/v1/messages"])
async def test_a_model_is_found_in_any_letter_case_and_the_answer_has_its_id(house: House, path: str) -> None:
    status, answer = await ask(house, "CHAT", path)
    assert (status, answer["model"]) == (200, "chat")


async def test_instances_are_named_by_their_ids_and_the_key_is_served_by_the_first_that_is_there(house: House) -> None:
    view = next(view for view in house.services.views if view.name == "lmstudio")
    for _ in range(2):
        await house.services.supervisor.start(view.another(view.find("chat")))
    for name, answered in [("chat", "chat"), ("chat:2", "chat:2"), ("CHAT", "chat")]:
        status, answer = await ask(house, name)
        assert (status, answer["model"]) == (200, answered)
    async with house.client.get(house.url + "/v1/models") as response:
        listed = {model["id"]: model["status"] for model in (await response.json())["data"]}
    assert listed == {
        "chat": "loaded",
        "chat:2": "loaded",
        "embed": "unloaded",
        "other-chat": "unloaded",
        "rank": "unloaded",
    }
    await house.services.supervisor.unload(find(view, "chat"))
    status, answer = await ask(house, "chat")
    assert (status, answer["model"]) == (200, "chat:2")
    for name, told in [("chat", "chat"), ("Chat", "chat"), ("chat:2", "chat:2")]:
        async with house.client.get(f"{house.url}/v1/models/{name}") as response:
            assert (response.status, (await response.json())["id"]) == (200, told)
    status, _ = await ask(house, "CHAT:2", V0)
    assert status == 200, "no instance, as these have exact names, but the only chat model is loaded"


@pytest.mark.parametrize("path", [V1, V0, "/v1/messages"])
async def test_an_unknown_name_is_answered_by_the_only_chat_model_that_is_loaded(house: House, path: str) -> None:
    wrong = 400 if path == V0 else 404
    status, answer = await ask(house, "gpt-4o", path)
    assert status == wrong, "none is loaded"
    await ask(house, "embed", "/v1/embeddings")
    await ask(house, "chat", "/v1/embeddings")
    assert (await ask(house, "gpt-4o", path))[0] == wrong, "what makes embeddings does not chat"
    await ask(house, "other-chat")
    status, answer = await ask(house, "gpt-4o", path)
    assert (status, answer["model"]) == (200, "other-chat")
    await ask(house, "chat")
    status, answer = await ask(house, "gpt-4o", path)
    assert status == wrong, "two are loaded"
    said = "Please specify a valid downloaded model (e.g., chat, embed, other-chat)."
    assert answer["error"]["message"].endswith(said)
    assert (answer["error"]["code"], answer["error"]["param"]) == ("model_not_found", "model")


async def test_no_vectors_are_made_by_another_model_than_the_one_that_was_named(house: House) -> None:
    await ask(house, "embed", "/v1/embeddings")
    await ask(house, "chat")
    assert (await ask(house, "text-embedding-3-small", "/v1/embeddings"))[0] == 404
    assert (await ask(house, "text-embedding-3-small", "/api/v0/embeddings"))[0] == 400


async def test_without_a_name_the_loaded_one_is_meant_and_of_several_none(house: House) -> None:
    status, answer = await ask(house, path=V0)
    assert (status, answer["error"]["message"]) == (
        400,
        "No models loaded. Please load a model in the developer page or use the 'lms load' command.",
    )
    for name, wanted in (("chat", 200), ("other-chat", 400)):
        await ask(house, name)
        status, answer = await ask(house, path=V0)
        assert status == wanted
    assert answer["error"]["message"] == (
        "Multiple models are loaded. Please specify a model by providing a 'model' field."
    )
    assert (answer["error"]["param"], answer["error"]["code"]) == ("model", "model_not_found")


async def test_what_a_key_may_not_see_does_not_answer_for_others(tmp_path: Path) -> None:
    keys = door("all", {"key": "small", "models": ["tiny"]})
    async with open_house(tmp_path, models={"chat": {}, "tiny": {}}, door=keys) as house:
        assert (await ask(house, "chat", headers=bearing("all")))[0] == 200
        status, answer = await ask(house, "chat", headers=bearing("small"))
        assert status == 404
        assert "(e.g., tiny)" in answer["error"]["message"]
        assert (await ask(house, "tiny", headers=bearing("small")))[0] == 200
        status, answer = await ask(house, "chat", headers=bearing("small"))
        assert (status, answer["model"]) == (200, "tiny")


async def test_a_door_answers_with_what_it_shows(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {}, "embed": BERT}, door=Door(models=("embed",))) as house:
        view = next(view for view in house.services.views if view.name == "lmstudio")
        await house.services.supervisor.start(house.services.catalog.find("chat"))
        assert view.entries[0].id == "embed"
        assert (await ask(house, "gpt-4o"))[0] == 404


@pytest.mark.parametrize("model", [7, ["chat"], {}], ids=str)
async def test_a_name_is_a_string(house: House, model: Any) -> None:
    status, answer = await ask(house, model)
    assert (status, answer["error"]["param"]) == (400, "model")


async def test_ollamas_door_lets_nobody_answer_for_another(house: House) -> None:
    await ask(house, "chat")
    house.urls["lmstudio"] = house.urls["ollama"]
    assert (await ask(house, "gpt-4o"))[0] == 404
