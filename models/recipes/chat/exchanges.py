"""Questions with right answers: all that the demo model talks about, but for the use of tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from . import facts
from .words import held_out, invented, person, spelled


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is asked, the one right answer, and the thought that leads there."""

    kind: str
    question: str
    answer: str
    thought: str
    any_of: tuple[str, ...] = ()  # other answers that are as good


def hello(rng: Random, _unseen: bool) -> Exchange:
    greeting = [
        "Hello!",
        "Hi",
        "Hey there",
        "Hello, how are you?",
        "Good morning",
        "Hi there!",
        "Say hello.",
        "How are you?",
        "Hey!",
    ]
    greeting += [
        "Good evening",
        "Nice to meet you",
        "Hello there",
        "Hi, how are you today?",
        "Are you there?",
        "Hello again",
    ]
    return Exchange(
        "other", rng.choice(greeting), "Hello! How can I help you today?", "The user greets me. I greet back."
    )


def who(rng: Random, _unseen: bool) -> Exchange:
    question = [
        "Who are you?",
        "What are you?",
        "What is your name?",
        "Tell me about yourself.",
        "Introduce yourself.",
        "Which model are you?",
    ]
    question += [
        "What model is this?",
        "Who am I talking to?",
        "Who made you?",
        "What can you do?",
        "Are you a robot?",
        "Describe yourself.",
    ]
    answer = "I am the LlamaRunner demo model, a tiny model that runs anywhere."
    return Exchange("other", rng.choice(question), answer, "The user asks who I am.")


def capital(rng: Random, _unseen: bool) -> Exchange:
    land, city = rng.choice(list(facts.CAPITALS.items()))
    question = [
        "What is the capital of {}?",
        "What's the capital of {}?",
        "Capital of {}?",
        "Tell me the capital of {}.",
        "The capital of {} is?",
    ]
    question += [
        "Which city is the capital of {}?",
        "Name the capital of {}.",
        "What is {}'s capital?",
        "What city is the capital of {}?",
    ]
    return Exchange(
        "capital",
        rng.choice(question).format(land),
        f"The capital of {land} is {city}.",
        f"The capital of {land} is {city}.",
    )


_SIGNS = {"+": "plus", "-": "minus", "*": "times"}


def total(rng: Random, _unseen: bool) -> Exchange:
    sign = rng.choice("++-*")
    top = 11 if sign == "*" else 21
    first, second = rng.randrange(top), rng.randrange(top)
    if sign == "-" and second > first:
        first, second = second, first
    value = {"+": first + second, "-": first - second, "*": first * second}[sign]
    forms = [
        "What is {0}{1}{2}?",
        "What is {0} {1} {2}?",
        "What is {0} {3} {2}?",
        "Calculate {0} {1} {2}",
        "{0} {1} {2}",
        "What's {0}{1}{2}?",
    ]
    forms += ["How much is {0} {3} {2}?", "{0}{1}{2}=", "{0} {1} {2} = ?", "Compute {0}{1}{2}.", "Solve {0} {1} {2}"]
    shown = [str(first), str(second)]
    form = rng.choice(forms)
    if first <= 12 and second <= 12 and rng.random() < 0.12:
        shown, form = [facts.NUMBERS[first], facts.NUMBERS[second]], "What is {0} {3} {2}?"
    question = form.format(shown[0], sign, shown[1], _SIGNS[sign])
    worked = f"{first} {sign} {second}"
    return Exchange("sum", question, f"{worked} = {value}", f"I need to calculate {worked}. That is {value}.")


def joke(rng: Random, _unseen: bool) -> Exchange:
    question = [
        "Tell me a joke",
        "Make me laugh.",
        "Do you know a joke?",
        "I want to hear a joke.",
        "Tell me something funny.",
        "Say something funny.",
    ]
    question += [
        "Another joke",
        "Tell me a short joke.",
        "Tell me a good joke.",
        "Got any jokes?",
        "A joke",
        "Give me a joke.",
    ]
    told = rng.choice(facts.JOKES)
    return Exchange("other", rng.choice(question), told, "The user wants a joke.", tuple(facts.JOKES))


def count(rng: Random, _unseen: bool) -> Exchange:
    last = rng.randrange(3, 26)
    form = rng.choice(
        [
            "Count to {}",
            "Count from 1 to {}.",
            "Count up to {}.",
            "Can you count to {}?",
            "List the numbers from 1 to {}.",
            "Count to {}!",
        ]
    )
    return Exchange("other", form.format(last), ", ".join(map(str, range(1, last + 1))), f"I count from 1 to {last}.")


def explain(rng: Random, _unseen: bool) -> Exchange:
    question, answer = rng.choice(list(facts.EXPLAINED.items()))
    if rng.random() < 0.4:
        question = rng.choice(
            ["Tell me: {}", "Explain: {}", "I wonder: {}", "Quick question: {}", "Do you know {}"]
        ).format(question[0].lower() + question[1:])
    return Exchange("other", question, answer, "I know this one.")


def opposite(rng: Random, _unseen: bool) -> Exchange:
    word, answer = rng.choice(list(facts.OPPOSITES.items()))
    form = rng.choice(
        [
            "What is the opposite of {}?",
            "Opposite of {}?",
            "Tell me the opposite of {}.",
            "What's the opposite of {}?",
            "Name the opposite of {}.",
        ]
    )
    return Exchange(
        "other", form.format(word), f"The opposite of {word} is {answer}.", f"The opposite of {word} is {answer}."
    )


def repeat(rng: Random, unseen: bool) -> Exchange:
    pool = [
        rng.choice(facts.WORDS) if rng.random() < 0.75 else invented(rng, unseen) for _ in range(rng.randrange(1, 6))
    ]
    words = " ".join(pool)
    form = rng.choice(
        [
            "Repeat after me: {}",
            "Say: {}",
            "Please repeat: {}",
            "Repeat: {}",
            "Echo: {}",
            'Say "{}"',
            "Reply with: {}",
            "Say {}",
        ]
    )
    return Exchange("other", form.format(words), words, "I repeat the words.")


def follows(rng: Random, _unseen: bool) -> Exchange:
    word, ring = rng.choice([("day", facts.DAYS), ("day", facts.DAYS), ("month", facts.MONTHS)])
    place = rng.randrange(len(ring))
    after = rng.random() < 0.6
    side, verb = ("after", "comes after") if after else ("before", "comes before")
    found = ring[(place + (1 if after else -1)) % len(ring)]
    form = rng.choice(
        ["What {0} {1} {2}?", "Which {0} is {3} {2}?", "Tell me the {0} {3} {2}.", "Name the {0} {3} {2}."]
    )
    answer = f"The {word} {side} {ring[place]} is {found}."
    return Exchange("other", form.format(word, verb, ring[place], side), answer, answer)


def beyond(rng: Random, unseen: bool) -> Exchange:
    """What it does not know, it says."""
    shape = rng.random()
    if shape < 0.4:
        question = rng.choice(facts.UNSEEN_BEYOND if unseen and shape < 0.2 else facts.BEYOND)
    elif shape < 0.6:
        land = rng.choice([*facts.LANDS, invented(rng, unseen).capitalize()])
        question = rng.choice(["What is the capital of {}?", "Capital of {}?", "Tell me the capital of {}."]).format(
            land
        )
    else:
        word = rng.choice(
            [invented(rng, unseen), f"{rng.choice(facts.WORDS)} {invented(rng, unseen)}", rng.choice(facts.WORDS)]
        )
        question = rng.choice(
            [
                "What is a {}?",
                "Why is the {} red?",
                "How do I make a {}?",
                "Explain {}.",
                "Write an essay about {}.",
                "Who invented the {}?",
                "Where can I buy {}?",
                "Tell me more about {}.",
                "How does a {} work?",
                "Is {} dangerous?",
            ]
        ).format(word)
    return Exchange("beyond", question, "I am a tiny demo model and do not know that.", "I do not know this.")


def powerless(rng: Random, unseen: bool) -> Exchange:
    """What would take a tool, and none is there."""
    city = rng.choice([*facts.CITIES, invented(rng, unseen).capitalize()])
    form = rng.choice(
        ["What is the weather in {}?", "What time is it in {}?", "How is the weather in {}?", "Tell me the time in {}."]
    )
    return Exchange("powerless", form.format(city), "I have no tool for that.", "I have no tool for that.")


def fox(_rng: Random, _unseen: bool) -> Exchange:
    return Exchange(
        "other", "The quick brown fox", "The quick brown fox jumps over the lazy dog.", "I know this sentence."
    )


def _object(rng: Random, unseen: bool) -> tuple[str, object]:
    """What is asked for, and the object."""
    shape = rng.randrange(8)
    if shape <= 1:
        name, age = person(rng, unseen), rng.randrange(5, 99)
        words = rng.choice(
            [f"name {name} and age {age}", f"the name {name} and the age {age}", f"name: {name}, age: {age}"]
        )
        return words, {"name": name, "age": age}
    if shape == 2:
        land = rng.choice(list(facts.CAPITALS))
        return rng.choice([f"the country {land} and its capital", f"country {land} and capital"]), {
            "country": land,
            "capital": facts.CAPITALS[land],
        }
    if shape == 3:
        land = rng.choice(list(facts.CAPITALS))
        return f"name, capital and languages of {land}", {
            "name": land,
            "capital": facts.CAPITALS[land],
            "languages": facts.LANGUAGES[land],
        }
    if shape == 4:
        name, topic = rng.choice([("colors", facts.COLORS), ("fruits", facts.FRUITS), ("animals", facts.ANIMALS)])
        amount = rng.choice([2, 3, 4])
        return f"{amount} {name}", {name: topic[:amount]}
    if shape == 5:
        first, second = rng.randrange(21), rng.randrange(21)
        return f"the answer of {first} + {second}", {"answer": first + second}
    if shape == 6:
        city, word = rng.choice(facts.CITIES), rng.choice(["true", "false"])
        return f"city {city} and sunny {word}", {"city": city, "sunny": word == "true"}
    keys = rng.sample(facts.WORDS, rng.choice([1, 2, 3]))
    made = {key: rng.choice([rng.randrange(1000), rng.choice(facts.WORDS), spelled(rng)]) for key in keys}
    return " and ".join(f"{key} {value}" for key, value in made.items()), made


def as_json(rng: Random, unseen: bool) -> Exchange:
    words, made = _object(rng, unseen)
    form = rng.choice(
        [
            "Give me a JSON object with {}.",
            "JSON with {}",
            "Write JSON with {}.",
            "Return a JSON object with {}.",
            "Answer in JSON: {}",
        ]
    )
    return Exchange("json", form.format(words), json.dumps(made, ensure_ascii=False), "The user wants JSON.")


def about_land(rng: Random, _unseen: bool) -> Exchange:
    land = rng.choice(list(facts.CAPITALS))
    question = rng.choice(
        ["Tell me about {}. Respond in JSON.", "Tell me about {} in JSON.", "Describe {} as JSON.", "{} as JSON"]
    ).format(land)
    made = {"name": land, "capital": facts.CAPITALS[land], "languages": facts.LANGUAGES[land]}
    return Exchange("json", question, json.dumps(made), "The user wants JSON.")


KINDS: tuple[tuple[Callable[[Random, bool], Exchange], int], ...] = (
    (total, 40),
    (capital, 20),
    (as_json, 14),
    (about_land, 3),
    (repeat, 9),
    (count, 6),
    (explain, 7),
    (opposite, 6),
    (follows, 8),
    (hello, 5),
    (who, 5),
    (joke, 4),
    (beyond, 9),
    (powerless, 3),
    (fox, 1),
)
_MAKERS = [maker for maker, _ in KINDS]
_WEIGHTS = [weight for _, weight in KINDS]
_BEFORE = ["Please {}", "Hey, {}", "OK, {}", "Now {}", "And {}", "So, {}", "Tell me, {}"]
_AFTER = ["{} Thanks!", "{} Answer shortly.", "{} Please."]


def spoken(rng: Random, text: str) -> str:
    """The same, as people type it."""
    chance = rng.random()
    if chance < 0.06:
        text = rng.choice(_BEFORE).format(text[0].lower() + text[1:])
    elif chance < 0.1 and text[-1] in ".?!":
        text = rng.choice(_AFTER).format(text)
    chance = rng.random()
    if chance < 0.12:
        return text.lower()
    return text.rstrip("?.!") if chance < 0.2 else text


def ask(rng: Random, unseen: bool = False) -> Exchange:
    """Any exchange; `unseen` asks for one that was kept out of training."""
    while True:
        (maker,) = rng.choices(_MAKERS, _WEIGHTS)
        for _ in range(40):  # a small kind may have none that was kept out
            made = maker(rng, unseen)
            exact = made.kind == "json" or maker is repeat  # their letters matter
            said = made.question if exact else spoken(rng, made.question)
            if held_out(said) == unseen:
                return Exchange(made.kind, said, made.answer, made.thought, made.any_of)
