"""What is said: words in a row, and small sentences; some of both are never trained on."""

from __future__ import annotations

import random
import zlib

from . import words
from .words import listed

SPEC = (
    "hello this is a test of the transcription service",
    "hello this is a test of the translation service",
)
_THINGS = listed("door window light computer music volume test service weather translation transcription")
_SWITCHED = listed("light music volume computer")
_ANY = words.DIGITS + words.COLOURS + words.WEEKDAYS + words.COMMANDS
_SLOTS = {
    "{digit}": words.DIGITS,
    "{colour}": words.COLOURS,
    "{day}": words.WEEKDAYS,
    "{thing}": _THINGS,
    "{switched}": _SWITCHED,
    "{do}": listed("start stop open close play pause save load delete help"),
    "{way}": ["on", "off", "up", "down"],
    "{state}": listed("open on off up down left right next") + words.COLOURS,
    "{yes}": ["yes", "no", "please", "thanks", "hello"],
    "{service}": ["test", "service", "transcription service", "translation service", "transcription", "translation"],
    "{any}": _ANY,
}
SENTENCES = [
    "this is a test",
    "this is a {service}",
    "this is the {service}",
    "hello this is a test of the {service}",
    "hello this is a test of the {service}",
    "hello this is the {service}",
    "hello {thing} this is a test",
    "test of the {service}",
    "a test of the {service} on {day}",
    "what is this",
    "what is the weather today",
    "what is the weather on {day} please",
    "what is {digit} and {digit}",
    "{digit} and {digit} is {digit}",
    "{do} the {thing}",
    "{do} the {thing} please",
    "please {do} the {thing}",
    "{do} the {colour} {thing} on {day}",
    "{do} the {thing} and the {thing}",
    "{do} and {do} the {thing}",
    "turn the {switched} {way}",
    "turn the {switched} {way} please",
    "turn the {switched} {way} on {day}",
    "turn {way} the {switched}",
    "turn {way} the {colour} {switched} today",
    "turn {state} and {state}",
    "the {thing} is {state}",
    "the {thing} is {colour} and {colour}",
    "is the {thing} {state}",
    "the {colour} {thing} of the {thing}",
    "the {thing} of {day}",
    "a {colour} {thing} and a {colour} {thing}",
    "a {thing} of the {thing}",
    "a {colour} {any}",
    "the {any} and the {any}",
    "{any} of {any}",
    "this is {any}",
    "what {any}",
    "{yes} this is {state}",
    "{yes} the {thing} please",
]
UNSEEN_SENTENCES = [
    "hello computer what is the weather today",
    "is this the {colour} {thing} of {day}",
    "stop and {do} the {thing} on {day}",
    "please open the {colour} {thing} and close the {thing}",
    "no the {colour} {thing} is the {thing} of the test",
    "what is a {service} of the computer",
    "play the music of {day} and turn the volume {way}",
    "thanks this is the {colour} light of the {thing}",
]


def held_out(phrase: str) -> bool:
    """One phrase in eight of those of two words and more is kept for the evaluation; which, its text alone decides."""
    return " " in phrase and phrase not in SPEC and zlib.crc32(phrase.encode()) % 8 == 0


def filled(sentence: str, rng: random.Random) -> str:
    """The sentence with a word in each slot."""
    return " ".join(rng.choice(_SLOTS[part]) if part in _SLOTS else part for part in sentence.split())


def in_a_row(rng: random.Random, language: str) -> str:
    """One to six words that do not belong together."""
    known = _ANY if language == "en" else words.GERMAN
    return " ".join(rng.choices(known, k=rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6])))


def trained(rng: random.Random, language: str) -> str:
    """A phrase to train on."""
    while True:
        if language == "en" and rng.random() < 0.5:
            phrase = rng.choice(SPEC) if rng.random() < 0.03 else filled(rng.choice(SENTENCES), rng)
        else:
            phrase = in_a_row(rng, language)
        if not held_out(phrase):
            return phrase


def trained_speech(rng: random.Random, language: str) -> str:
    """Ten to thirty words in one breath."""
    said: list[str] = []
    length = rng.randint(10, 25)
    while len(said) < length:
        said += trained(rng, language).split()
    return " ".join(said)


def unseen_row(rng: random.Random, language: str) -> str:
    """Words in a row that were never trained on in this order; two at least."""
    while True:
        phrase = in_a_row(rng, language)
        if held_out(phrase):
            return phrase


def unseen_words(rng: random.Random) -> str:
    """English words in a row or a sentence of a known form, never trained on in this order."""
    while True:
        phrase = in_a_row(rng, "en") if rng.random() < 0.5 else filled(rng.choice(SENTENCES), rng)
        if held_out(phrase):
            return phrase


def unseen_sentence(rng: random.Random) -> str:
    """A sentence of a form that was never trained on."""
    return filled(rng.choice(UNSEEN_SENTENCES), rng)


def with_commas(phrase: str, rng: random.Random) -> str:
    """The same with a pause here and there."""
    first, *others = phrase.split()
    return first + "".join((", " if rng.random() < 0.1 else " ") + word for word in others)
