"""The demo model that sees, as it is shipped, through both doors and the official clients."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from llamarunner.config import bundled
from tests.house.conftest import House, OpenHouse, open_house

__all__ = ["open_house"]  # the fixture

MODEL = "demo-vision"
QUESTION = "Describe this image in two sentences"
RED = (  # the 10×10 pixels of LM Studio's documentation
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)
BROKEN = base64.b64encode(base64.b64decode(RED)[:40]).decode()


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as house:
        yield house


@pytest.fixture(params=["Ollama", "LM Studio"])
async def client(house: House, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=house.urls[request.param] + "/v1", api_key="any", max_retries=0) as client:
        yield client


def square(red: int, green: int, blue: int, side: int = 32) -> str:
    """A PNG file of one colour, in base64."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes((red, green, blue)) * side) * side)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(packed)).decode()


def shown(image: str, question: str = QUESTION) -> list[Any]:
    parts = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    return [{"role": "user", "content": parts}]


async def test_it_describes_the_red_square_of_the_documentation(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=shown(RED), temperature=0)
    said = answer.choices[0].message.content or ""
    assert "red" in said
    assert said.count(".") == 2
    assert answer.choices[0].finish_reason == "stop"


async def test_it_tells_colours_apart(client: openai.AsyncOpenAI) -> None:
    shades = {"blue": (30, 60, 230), "green": (20, 150, 40), "yellow": (250, 230, 40), "white": (255, 255, 255)}
    for name, shade in shades.items():
        messages = shown(square(*shade), "What colour is this image?")
        answer = await client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
        assert answer.choices[0].message.content == f"This image is {name}."


async def test_it_streams_the_same(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": shown(square(255, 165, 0)), "temperature": 0}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(**asked, stream=True)
    said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    assert said == whole.choices[0].message.content
    assert "orange" in said


async def test_it_remembers_the_picture_and_what_the_chat_model_knows(client: openai.AsyncOpenAI) -> None:
    messages = shown(square(0, 0, 255))
    for follow_up, expected in (
        ("", "blue"),
        ("What colour is it?", "blue"),
        ("What is the capital of France?", "Paris"),
    ):
        if follow_up:
            messages.append({"role": "user", "content": follow_up})
        answer = await client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
        said = answer.choices[0].message.content or ""
        assert expected in said
        messages.append({"role": "assistant", "content": said})


async def test_a_broken_picture_is_the_client_s_mistake(client: openai.AsyncOpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model=MODEL, messages=shown(BROKEN), stream=stream)
        assert raised.value.body
        assert raised.value.type == "invalid_request_error"
    answer = await client.chat.completions.create(model=MODEL, messages=shown(RED), temperature=0)
    assert "red" in (answer.choices[0].message.content or "")


async def test_anthropic_s_client_shows_pictures_too(house: House) -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": RED}}
    content: list[Any] = [image, {"type": "text", "text": "What is in this image?"}]
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key="any", max_retries=0) as claude:
        answer = await claude.messages.create(
            model=MODEL, max_tokens=100, messages=[{"role": "user", "content": content}], extra_body={"temperature": 0}
        )
    assert "red" in "".join(block.text for block in answer.content if block.type == "text")


async def test_the_other_demo_models_do_not_claim_to_see(client: openai.AsyncOpenAI) -> None:
    """Each finds its projector by its neighbours' names."""
    with pytest.raises(openai.BadRequestError, match="image"):
        await client.chat.completions.create(model="demo-chat", messages=shown(RED))


def test_it_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (bundled("models") / MODEL).iterdir()}
    assert sizes.keys() == {"demo-vision.gguf", "demo-vision-mmproj.gguf"}
    assert sum(sizes.values()) < 3_000_000
