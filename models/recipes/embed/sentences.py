"""Sentences with a known meaning, pure and reproducible: what is trained on, and what is kept out of it.

A meaning is an intent with its slots filled, so that two sentences of one meaning say the same. `held_out` decides by
the sentence alone, whatever it is drawn for: about an eighth of all sentences, by a hash, and all with certain words.
"""

from __future__ import annotations

import random
import re
import string
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from . import domain
from .intents import FRAMES, INTENTS

HELD_OUT_SHARE = 8  # one sentence in so many
_TRIES = 60
_INVENTED, _FRAMED, _IN_WORDS = 0.3, 0.25, 0.25  # how often
_ONSETS = domain.words("b c d f g h j k l m n p r s t v w z br ch cl dr fl gr pl sh st th tr")
_VOWELS = domain.words("a e i o u ai ea ee ou")
_CODAS = ("", "", "", *domain.words("l m n r s t ck nd ng rt st"))


@dataclass(frozen=True, slots=True)
class Meaning:
    """An intent with its slots filled, in one order where the order says nothing."""

    intent: str
    slots: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Triple:
    """A sentence, one that says the same and one that does not."""

    anchor: str
    same: str
    different: str
    meaning: Meaning
    other: Meaning


def plain(sentence: str) -> list[str]:
    """Its words, without case and punctuation, which make no other sentence."""
    return re.findall(r"\w+|[+*-]", sentence.lower())


def unheard(sentence: str) -> bool:
    """Whether it has one of the words that no training sentence has."""
    return not domain.NEVER_TRAINED.isdisjoint(plain(sentence))


def held_out(sentence: str) -> bool:
    """Whether a sentence is never trained on."""
    return zlib.crc32(" ".join(plain(sentence)).encode()) % HELD_OUT_SHARE == 0 or unheard(sentence)


def trained(sentence: str) -> bool:
    return not held_out(sentence)


def training_triples(seed: int) -> Iterator[Triple]:
    """What is trained on, without end; half of the different sentences differ from the anchor in one slot."""
    writer = Writer(seed, trained)
    return writer.triples(writer.another_slot, writer.another_intent, writer.another_slot, writer.another_meaning)


class Writer:
    """Draws sentences that `wanted` accepts; the same seed draws the same ones.

    `another_slot`, `another_intent` and `another_meaning` are the contrasts: each makes of a meaning a different one,
    or None where it has nothing to change.
    """

    def __init__(self, seed: int, wanted: Callable[[str], bool]) -> None:
        self.random = random.Random(seed)
        self.wanted = wanted

    def triples(self, *contrasts: Callable[[Meaning], Meaning | None]) -> Iterator[Triple]:
        """Yield triples without end; each contrast in turn makes the meaning of the different sentence."""
        while True:
            for contrast in contrasts:
                yield self._triple(contrast)

    def another_slot(self, meaning: Meaning) -> Meaning | None:
        """Change one slot."""
        if not meaning.slots:
            return None
        kinds = INTENTS[meaning.intent].slots
        changed = self.random.choice(list(kinds))
        return _meaning(meaning.intent, {**dict(meaning.slots), changed: self._value(kinds[changed])})

    def another_intent(self, meaning: Meaning) -> Meaning | None:
        """Keep one slot, and want something else with it."""
        if not meaning.slots:
            return None
        name, value = self.random.choice(meaning.slots)
        kind = INTENTS[meaning.intent].slots[name]
        others = [other for other, intent in INTENTS.items() if kind in intent.slots.values()]
        others.remove(meaning.intent)
        if not others:
            return None
        other = self.random.choice(others)
        slots = {slot: self._value(kind) for slot, kind in INTENTS[other].slots.items()}
        kept = next(slot for slot, of in INTENTS[other].slots.items() if of == kind)
        return _meaning(other, {**slots, kept: value})

    def another_meaning(self, meaning: Meaning) -> Meaning | None:
        """Anything else."""
        return self.meaning()

    def meaning(self, intent: str | None = None) -> Meaning:
        names = list(INTENTS)
        weights = [1 + 2 * len(made.slots) for made in INTENTS.values()]
        intent = intent or self.random.choices(names, weights)[0]
        return _meaning(intent, {slot: self._value(kind) for slot, kind in INTENTS[intent].slots.items()})

    def sentence(self, meaning: Meaning, templates: tuple[str, ...] | None = None) -> tuple[str, str] | None:
        """Say it: (template, sentence), or None if no such sentence is wanted."""
        intent = INTENTS[meaning.intent]
        for _ in range(_TRIES):
            fields = self._fields(meaning)
            usable = [
                template for template in templates or intent.asked + intent.answered if _names(template) <= set(fields)
            ]
            if not usable:
                return None
            template = self.random.choice(usable)
            sentence = template.format(**fields)
            if template in intent.answered:
                sentence = sentence[0].upper() + sentence[1:]
            elif self.random.random() < _FRAMED:
                sentence = self.random.choice(FRAMES).format(sentence)
            if self.wanted(sentence):
                return template, sentence
        return None

    def _triple(self, contrast: Callable[[Meaning], Meaning | None]) -> Triple:
        """Draw until all three sentences are there; the different one is phrased as the anchor where it can be."""
        while True:
            meaning = self.meaning()
            other = contrast(meaning)
            if other is None or other == meaning:
                continue
            said, again = self.sentence(meaning), self.sentence(meaning)
            if said is None or again is None or said[0] == again[0]:
                continue
            alike = (said[0],) if other.intent == meaning.intent else None
            if different := self.sentence(other, alike):
                return Triple(said[1], again[1], different[1], meaning, other)

    def _value(self, kind: str) -> str:
        if kind in domain.OPEN and self.random.random() < _INVENTED:
            word = self._invented()
            return word.capitalize() if kind in ("country", "city", "name") else word
        return self.random.choice(domain.VALUES[kind])

    def _invented(self) -> str:
        """A word that nobody has heard, of two or three syllables."""
        syllables = self.random.choice((2, 2, 3))
        made = [self.random.choice(_ONSETS) + self.random.choice(_VOWELS) for _ in range(syllables)]
        return "".join(made) + self.random.choice(_CODAS)

    def _fields(self, meaning: Meaning) -> dict[str, str]:
        slots = dict(meaning.slots)
        if INTENTS[meaning.intent].any_order:
            values = list(slots.values())
            self.random.shuffle(values)
            slots = dict(zip(slots, values, strict=True))
        fields = {**_known(slots), **self._by_chance(slots)}
        return {slot: self._number(value) for slot, value in slots.items()} | fields

    def _number(self, value: str) -> str:
        """Spell a small number as a word now and then."""
        in_words = value.isdigit() and int(value) < len(domain.COUNTED) and self.random.random() < _IN_WORDS
        return domain.COUNTED[int(value)] if in_words else value

    def _by_chance(self, slots: dict[str, str]) -> dict[str, str]:
        """What an answer tells and no question asks for."""
        draw = self.random
        fields = {
            "degrees": str(draw.randrange(1, 36)),
            "sky": draw.choice(("sunny", "cloudy", "rainy", "windy")),
            "clock": f"{draw.randrange(24):02d}:{draw.randrange(60):02d}",
        }
        if noun := slots.get("noun"):
            fields["a_noun"] = f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
            hero, friend = draw.sample(domain.VALUES["name"], 2)
            where = draw.choice(("in the mountains", "by the sea", "in a quiet town", "near a river"))
            found = draw.choice(("a golden key", "an old map", "a lost letter", "a blue stone"))
            fields["tale"] = (
                f"Once upon a time there was {fields['a_noun']} named {hero} who lived {where}. One day {hero} found "
                f"{found}. {hero} showed it to a friend named {friend}, and together they kept it safe. The end."
            )
        return fields


def _known(slots: dict[str, str]) -> dict[str, str]:
    """The fields that follow from the slots."""
    fields: dict[str, str] = {}
    match slots:
        case {"country": country} if country in domain.CAPITALS:
            fields["capital"] = domain.CAPITALS[country]
        case {"word": word}:
            fields |= {"opposite": domain.OPPOSITES[word], "letters": " ".join(word)}
        case {"day": day}:
            place = domain.WEEK.index(day)
            fields |= {"next": domain.WEEK[(place + 1) % 7], "previous": domain.WEEK[place - 1]}
        case {"noun": noun} if noun in domain.KIND_OF:
            fields["kind"] = domain.KIND_OF[noun]
        case {"topic": topic} if topic in domain.FACTS:
            fields["definition"], fields["explanation"] = domain.FACTS[topic]
        case {"topic": topic}:
            fields["question"], fields["definition"], fields["explanation"] = domain.REASONS[topic]
        case {"n": n}:
            fields["numbers"] = ", ".join(map(str, range(1, int(n) + 1)))
        case {"a": a, "b": b} if a.isdigit():
            one, two = int(a), int(b)
            fields |= {"sum": str(one + two), "product": str(one * two), "difference": str(one - two)}
    return fields


def _meaning(intent: str, slots: dict[str, str]) -> Meaning:
    values = sorted(slots.values()) if INTENTS[intent].any_order else slots.values()
    return Meaning(intent, tuple(zip(slots, values, strict=True)))


@cache
def _names(template: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in string.Formatter().parse(template) if name)
