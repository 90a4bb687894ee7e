"""Words that nobody has seen, and what is kept out of training."""

from __future__ import annotations

import re
import zlib
from random import Random

from . import facts

_EVERY = 12  # one sentence in so many is never trained
_ALWAYS = {  # what documents and first-time users ask is trained in any case
    *["hello", "hello how are you", "who are you", "what is the capital of france", "what is 2 2", "what is 2 plus 2"],
    *[
        "tell me a joke",
        "count to 10",
        "calculate 5 10",
        "tell me a story about ai",
        "once upon a time",
        "what is my name",
    ],
    *["what is the weather in paris", "why is the sky blue", "who am i", "hi", "my name is alice"],
}


def held_out(text: str) -> bool:
    """Whether this sentence, in whatever case and punctuation, is kept for the evaluation."""
    plain = " ".join(re.findall(r"[^\W_]+|[-*+]", text.casefold()))
    if re.sub(r" [-*+] | +", " ", plain) in _ALWAYS:
        return False
    return zlib.crc32(plain.encode()) % _EVERY == 0


def invented(rng: Random, unseen: bool) -> str:
    """A word that could be one: `tavino`."""
    while True:
        syllables = rng.choice([2, 2, 3])
        word = "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(syllables)) + rng.choice(
            ["", *"nrst"]
        )
        if held_out(word) == unseen:
            return word


def person(rng: Random, unseen: bool) -> str:
    """Somebody's name."""
    if rng.random() < 0.4:
        return invented(rng, unseen).capitalize()
    return rng.choice(facts.UNSEEN_NAMES if unseen else facts.NAMES)


def spelled(rng: Random) -> str:
    """A name as files and models have them: `kora-7b`."""
    stem = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randrange(3, 8)))
    return rng.choice(
        [
            stem,
            stem.capitalize(),
            f"{stem}-{rng.randrange(1, 90)}b",
            f"{stem}_{rng.randrange(10)}",
            f"{stem}.{rng.choice(['txt', 'gguf', 'md'])}",
        ]
    )
