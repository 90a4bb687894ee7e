"""LM Studio's official Python client, sync and async, with the real runtime and the demo models."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
from lmstudio import AsyncClient, Chat

from tests.house.conftest import House, OpenHouse

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
COLD = {"temperature": 0.0}
RED = base64.b64decode(  # 10×10 pixels
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return f"sunny in {city}"


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as house:
        yield house


def host(house: House) -> str:
    return house.url.removeprefix("http://")


async def test_main_paths_of_the_asynchronous_client(house: House) -> None:
    async with AsyncClient(host(house)) as client:
        keys = {one.model_key: one.type for one in await client.list_downloaded_models()}
        assert keys == {"demo-chat": "llm", "demo-vision": "llm", "demo-embed": "embedding"}
        progress: list[float] = []
        model = await client.llm.model("demo-chat", on_load_progress=progress.append)
        assert (progress[0], progress[-1]) == (0.0, 1.0)
        assert [one.identifier for one in await client.llm.list_loaded()] == ["demo-chat"]
        assert (await model.get_info()).model_key == "demo-chat"
        context = await model.get_context_length()
        assert (await model.get_load_config()).context_length == context > 0
        result = await model.respond(QUESTION, config=COLD)
        print(repr(result.content), result.stats)
        print(await model.tokenize(ANSWER), await model.count_tokens(ANSWER), await model.apply_prompt_template(QUESTION))
        print((await model.respond(QUESTION, response_format=SCHEMA, config=COLD | {"maxTokens": 60})).parsed)
        print(await model.complete("The capital of", config=COLD | {"maxTokens": 8}))
        progress=[]
        s = await model.respond_stream(QUESTION, config=COLD, on_prompt_processing_progress=progress.append)
        async for f in s:
            print(f)
        print(progress)
        said=[]
        r= await model.act("What is the weather in Paris?", [get_weather], config=COLD, on_message=said.append, max_prediction_rounds=3)
        print(r, said)
        vision = await client.llm.model("demo-vision")
        image = await client.prepare_image(RED)
        c = Chat(); c.add_user_message("What color is this?", images=[image])
        print(await vision.respond(c, config=COLD|{"maxTokens":30}))
        e = await client.embedding.model("demo-embed")
        print(len(await e.embed("abc")), await e.get_context_length(), len(await e.embed(["a"]*12)))
        r = await model.respond(QUESTION, config=COLD | {"maxTokens": 3})
        print(r.stats)
        r = await model.respond(QUESTION, config=COLD | {"stopStrings": ["capital"]})
        print(r.stats)
