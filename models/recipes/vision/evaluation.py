"""Questions through a door about pictures in shades that were kept out of training, at temperature 0.

Half are asked with thinking, half show the picture before the question; pictures are of several sizes.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from ..chat.exchanges import ask as exchange
from ..chat.facts import CAPITALS
from ..recipe import Score, right, stage
from ..serving import serving
from .colours import COLOURS, NAMES
from .corpus import KINDS, NO_IMAGE
from .pictures import Layout, Picture, painted, picture

FILES = ("demo-vision.gguf", "demo-vision-mmproj.gguf")
SIZES = ((10, 10), (16, 16), (64, 48), (100, 100), (200, 300), (300, 200))
_SEED = 7
_EACH = 20  # pictures of one colour
_HALVES = 100  # pictures of one layout
_TALK = 100
_MISSING = 50
Ask = Callable[[Any], Awaitable[str]]  # the content of a message → the answer


def evaluate(folder: Path) -> list[Score]:
    """Ask some 500 questions; takes less than a minute."""
    return asyncio.run(_evaluate(folder))


async def _evaluate(folder: Path) -> list[Score]:
    rng = Random(_SEED)
    async with asking(folder, rng) as ask:
        plain: dict[str, list[bool]] = {name: [] for name in NAMES}
        with stage("Plain pictures", len(COLOURS)) as step:
            for shades in COLOURS:
                for _ in range(_EACH):
                    shown = painted(rng, Layout.PLAIN, shades, shades, unseen=True)
                    plain[shades.name].append(await _named(ask, shown, rng))
                step(shades.name)
        worst = min(plain, key=lambda name: sum(plain[name]))
        halves = {
            layout: [await _named(ask, picture(rng, layout, unseen=True), rng) for _ in range(_HALVES)]
            for layout in (Layout.SIDES, Layout.LEVELS)
        }
        capitals = [
            await ask(f"What is the capital of {land}?") == f"The capital of {land} is {city}."
            for land, city in CAPITALS.items()
        ]
        talk = [exchange(rng, unseen=True) for _ in range(_TALK)]
        other = [await ask(one.question) in (one.answer, *one.any_of) for one in talk]
        missing = [await ask(_question(picture(rng, Layout.PLAIN, True), rng)) == NO_IMAGE for _ in range(_MISSING)]
    return [
        right("plain colours", [answer for answers in plain.values() for answer in answers], 95),
        right(f"the worst of them, {worst}", plain[worst], 85),
        right("left and right", halves[Layout.SIDES], 95),
        right("above and below", halves[Layout.LEVELS], 95),
        right("capitals, without a picture", capitals, 95),
        right("other talk, as the chat model has it", other),
        right("no picture sent, and it says so", missing),
    ]


async def _named(ask: Ask, shown: Picture, rng: Random) -> bool:
    """Whether the answer names the picture's colours, in this order, and no other."""
    url = "data:image/png;base64," + base64.b64encode(shown.png(*rng.choice(SIZES))).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": _question(shown, rng)}]
    answer = await ask(parts if rng.random() < 0.5 else parts[::-1])
    said = [word for word in re.findall(r"[a-z]+", answer.lower()) if word in NAMES]
    return said == list(dict.fromkeys(shown.names))


def _question(shown: Picture, rng: Random) -> str:
    return rng.choice(KINDS)(rng, shown)[0].replace("{noun}", "image")


@asynccontextmanager
async def asking(folder: Path, rng: Random) -> AsyncIterator[Ask]:
    """Serve the model until the end of the block, and give what asks it."""
    async with serving(*(folder / name for name in FILES)) as url, aiohttp.ClientSession() as http:

        async def ask(content: Any) -> str:
            body = {
                "model": "demo-vision",
                "messages": [{"role": "user", "content": content}],
                "temperature": 0,
                "max_tokens": 120,
                "chat_template_kwargs": {"enable_thinking": rng.random() < 0.5},
            }
            async with http.post(f"{url}/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                answer: str = (await response.json())["choices"][0]["message"]["content"] or ""
                return answer

        yield ask
