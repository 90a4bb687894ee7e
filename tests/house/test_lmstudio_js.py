"""LM Studio's official JavaScript client, with the real runtime and the demo models."""

from __future__ import annotations

import json

import pytest

from llamarunner import __version__
from tests.house import javascript
from tests.house.conftest import OpenHouse

RED = (  # 10×10 pixels
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)


@pytest.mark.usefixtures("npm_packages")
async def test_the_main_paths_of_the_javascript_client(open_house: OpenHouse) -> None:
    async with open_house() as house:
        said = await javascript.run("lmstudio_client.js", house.url.replace("http:", "ws:"), RED)
    seen = json.loads(said.splitlines()[-1])
    context, template, picture = seen.pop("context"), seen.pop("template"), seen.pop("picture")
    assert context >= 512
    assert template.startswith("<|im_start|>user\nWhat is the capital of France?")
    assert "red" in picture.casefold()
    assert seen == {
        "downloaded": [["demo-chat", "llm"], ["demo-embed", "embedding"], ["demo-vision", "llm"]],
        "version": __version__,
        "progress": [0, 1],
        "info": ["demo-chat", "demo-chat"],
        "answer": ["The capital of France is Paris.", "eosFound", 30],
        "thinks": True,
        "cancelled": "userStopped",
        "limited": "maxPredictedTokensReached",
        "structured": ["city"],
        "tokens": True,
        "act": [2, ["Paris"]],
        "embedding": [192, 192, 192],
        "loaded": ["demo-chat", "mine"],
        "other": ["mine", 256],
        "gone": "This model has already been unloaded.",
        "none": "Cannot find a model with the key 'none'.",
        "log": True,
    }
