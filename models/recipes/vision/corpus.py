"""Conversations about pictures, in the pieces of the chat model's corpus; a picture is the character `IMAGE` there."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from ..chat.corpus import JSON, Piece, assistant, render, told, user
from ..chat.exchanges import ask, spoken
from ..chat.facts import PROMPTS
from .colours import NAMES
from .pictures import Layout, Picture, picture

IMAGE = "\ue000"  # for private use, so in no text
NO_IMAGE = "I see no image."
_NOUNS = ("image", "image", "picture", "photo")
_COLOUR = (
    "What colour is this {noun}?",
    "What color is this {noun}?",
    "What colour is it?",
    "What color is it?",
    "What colour is this?",
    "What color is this?",
    "Which colour is this {noun}?",
    "Which color is this?",
    "What is the color of this {noun}?",
    "What is the colour of this {noun}?",
    "What color is the {noun}?",
    "What colour is the {noun}?",
    "What color is the square?",
    "What colour is this square?",
    "What color do you see?",
    "What colour do you see?",
    "What colors are in this {noun}?",
    "What colours are in the {noun}?",
    "Name the colour of this {noun}.",
    "Tell me the color of this {noun}.",
)
_DESCRIBE = (
    "Describe this {noun} in two sentences",
    "Describe this {noun} in two sentences.",
    "Describe this {noun}.",
    "Describe the {noun}.",
    "Describe this {noun} in detail.",
    "Please describe this {noun}.",
    "Can you describe this {noun}?",
    "Describe it.",
    "Tell me about this {noun}.",
)
_SEE = (
    "What is in this {noun}?",
    "What's in this {noun}?",
    "What is in the {noun}?",
    "What is on this {noun}?",
    "What do you see?",
    "What do you see in this {noun}?",
    "What can you see in this {noun}?",
    "What does this {noun} show?",
    "What is this {noun}?",
    "What is this?",
    "What's this?",
)


def where(shown: Picture) -> str:
    """Its colours in words: `red`, or `red on the left and blue on the right`."""
    first, second = shown.names
    return {
        Layout.PLAIN: first,
        Layout.SIDES: f"{first} on the left and {second} on the right",
        Layout.LEVELS: f"{first} at the top and {second} at the bottom",
    }[shown.layout]


def colour(rng: Random, shown: Picture) -> tuple[str, str]:
    """A question for the colour, and its answer."""
    return rng.choice(_COLOUR), f"This image is {where(shown)}."


def describe(rng: Random, shown: Picture) -> tuple[str, str]:
    """Two sentences. The first is that of `colour`: so small a model learns it once, and the second follows from it."""
    plain = shown.layout is Layout.PLAIN
    more = "It is one plain colour from edge to edge." if plain else "Each half is one plain colour."
    return rng.choice(_DESCRIBE), f"This image is {where(shown)}. {more}"


def see(rng: Random, shown: Picture) -> tuple[str, str]:
    return rng.choice(_SEE), f"I see {where(shown)}."


def check(rng: Random, shown: Picture) -> tuple[str, str]:
    """A guess, right or wrong. The answer tells what there is, and leaves the comparing to the person."""
    guess = rng.choice((*shown.names, *NAMES))
    question = rng.choice(("Is this {noun} {guess}?", "Is it {guess}?", "Is this {guess}?", "Is the {noun} {guess}?"))
    return question.replace("{guess}", guess), f"It is {where(shown)}."


KINDS: tuple[Callable[[Random, Picture], tuple[str, str]], ...] = (colour, colour, describe, see, check)


class Document(NamedTuple):
    """A conversation, and the pictures that its `IMAGE`s stand for, in that order."""

    pieces: list[Piece]
    pictures: list[Picture]


def about_pictures(rng: Random) -> Document:
    """Questions about one or two pictures, at times other talk before and after; now and then a picture is missing."""
    think = rng.random() < 0.4
    messages: list[JSON] = [{"role": "system", "content": rng.choice(PROMPTS)}] if rng.random() < 0.3 else []
    if rng.random() < 0.15:
        messages += told(ask(rng), think)
    if rng.random() < 0.08:
        return Document(list(render(messages + _missed(rng, think))), [])
    pictures = [any_picture(rng) for _ in range(rng.choice((1, 1, 1, 2)))]
    for shown in pictures:
        messages += _shown(rng, shown, think)
    if rng.random() < 0.15:
        messages += told(ask(rng), think)
    return Document(list(render(messages)), pictures)


def any_picture(rng: Random) -> Picture:
    return picture(rng, rng.choice((Layout.PLAIN, Layout.PLAIN, Layout.SIDES, Layout.LEVELS)), unseen=False)


def _missed(rng: Random, think: bool) -> list[JSON]:
    """A question about a picture that was not sent."""
    question, _ = rng.choice(KINDS)(rng, any_picture(rng))
    return [user(_asked(rng, question)), assistant(NO_IMAGE, "There is no image." if think else "")]


def _shown(rng: Random, shown: Picture, think: bool) -> list[JSON]:
    """A picture with a question, then perhaps one more about it."""
    made: list[JSON] = []
    for number in range(rng.choice((1, 1, 2))):
        question, answer = rng.choice(KINDS)(rng, shown)
        asked = _asked(rng, question)
        if number == 0:
            asked = rng.choice((IMAGE + asked, asked + IMAGE))
        thought = f"The user asks about an image. It is {where(shown)}." if think else ""
        made += [user(asked), assistant(answer, thought)]
    return made


def _asked(rng: Random, question: str) -> str:
    return spoken(rng, question.replace("{noun}", rng.choice(_NOUNS)))
