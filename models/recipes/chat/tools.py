"""Tools as clients offer them: many names for each intent and its parameters, so that the schema must be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from random import Random
from typing import Any

from . import facts
from .words import held_out, invented, person, spelled

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A question that a tool answers, and all that follows."""

    question: str
    tool: JSON  # as in a request's `tools`
    arguments: JSON
    result: str
    answer: str
    intent: str
    city: str = ""  # where it is the only argument, so that two can be asked for at once

    @property
    def name(self) -> str:
        name: str = self.tool["function"]["name"]
        return name

    @property
    def called(self) -> JSON:
        return {"name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class Form:
    """The ways to offer one kind of tool."""

    names: str
    about: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]  # names to choose from, JSON type
    notes: tuple[str, ...]  # a description for each parameter


FORMS = {
    "weather": Form(
        "get_weather get_current_weather current_weather weather fetch_weather weather_lookup get_forecast "
        "get_temperature",
        (
            "Get the current weather in a city",
            "Get the weather for a location.",
            "Returns the weather",
            "Current weather",
        ),
        (("city location place city_name", "string"),),
        ("The name of the city",),
    ),
    "time": Form(
        "get_time get_current_time current_time time_in clock local_time",
        ("Get the current time in a city", "Returns the local time.", "Tell the time of a place"),
        (("city location place city_name", "string"),),
        ("The city to get the time for",),
    ),
    "add": Form(
        "add add_numbers add_two_numbers sum plus calculate_sum",
        ("Given two numbers a and b, returns the sum of them", "Add two numbers", "Returns the sum."),
        (("a x first num1 number1", "number"), ("b y second num2 number2", "number")),
        ("The first number", "The second number"),
    ),
    "subtract": Form(
        "subtract minus subtract_numbers subtract_two_numbers difference",
        ("Subtract b from a", "Returns the difference of two numbers", "Subtract two numbers."),
        (("a x first num1 number1", "number"), ("b y second num2 number2", "number")),
        ("The first number", "The second number"),
    ),
    "multiply": Form(
        "multiply multiply_numbers product times multiply_two_numbers",
        ("Given two numbers a and b, returns the product of them", "Multiply two numbers", "Returns the product."),
        (("a x first num1 number1", "number"), ("b y second num2 number2", "number")),
        ("The first factor", "The second factor"),
    ),
    "timer": Form(
        "set_timer start_timer timer create_timer countdown",
        ("Set a timer for a number of minutes", "Start a countdown.", "Sets a timer"),
        (("minutes duration duration_minutes length time", "integer"),),
        ("How many minutes",),
    ),
    "email": Form(
        "send_email send_mail email mail write_email compose_email",
        ("Send an email to a person", "Sends a mail.", "Write an email to someone"),
        (("to recipient person receiver", "string"), ("subject topic about title", "string")),
        ("Who gets it", "What it is about"),
    ),
    "search": Form(
        "search web_search search_web internet_search lookup model_search find",
        ("Search the web", "Searches the internet for a query.", "Look something up"),
        (("query q text term search_query", "string"),),
        ("What to look for",),
    ),
    "visit": Form(
        "browser_navigate open_page open_url visit fetch_url goto",
        ("Navigate to a URL", "Opens a web page.", "Open a URL in the browser"),
        (("url link address page", "string"),),
        ("The URL to open",),
    ),
    "light": Form(
        "set_light light switch_light control_light",
        ("Switch the light in a room on or off", "Controls a lamp.", "Turn a light on or off"),
        (("room place where", "string"), ("on state enabled", "boolean")),
        ("Which room", "true for on"),
    ),
    "price": Form(
        "get_stock_price stock_price get_price price_of",
        ("Get the price of a stock", "Returns the current price.", "Price of a share"),
        (("ticker symbol stock", "string"),),
        ("The symbol of the stock",),
    ),
}


def _names(intent: str) -> tuple[list[list[str]], list[list[str]]]:
    """All names such a tool and its parameters bear: those to train with, and those kept out."""
    form = FORMS[intent]
    columns = zip(*(names.split() for names, _ in form.parameters), strict=True)
    every = [[name, *column] for name, column in product(form.names.split(), columns)]
    unseen = [names for names in every if held_out(" ".join(names))] or every[-1:]
    return [names for names in every if names not in unseen], unseen


NAMES = {intent: _names(intent) for intent in FORMS}


def offer(rng: Random, intent: str, unseen: bool) -> JSON:
    """A tool of this intent; `unseen` asks for names that were kept out of training."""
    form = FORMS[intent]
    name, *keys = rng.choice(NAMES[intent][unseen])
    notes = form.notes if rng.random() < 0.25 else ()
    properties: JSON = {}
    for key, (_, kind), note in zip_longest(keys, form.parameters, notes):
        properties[key] = {"type": kind, "description": note} if note else {"type": kind}
    return function(rng, name, rng.choice(form.about), properties)


def function(rng: Random, name: str, about: str, properties: JSON, required: list[str] | None = None) -> JSON:
    """The `tools` entry, as the one or other client writes it."""
    parameters: JSON = {"type": "object", "properties": properties, "required": required or list(properties)}
    extra = rng.random()
    if extra < 0.12:
        parameters["additionalProperties"] = False
    elif extra < 0.2:
        parameters = {"$schema": "http://json-schema.org/draft-07/schema#"} | parameters
    elif extra < 0.28:
        parameters = {"properties": properties, "required": parameters["required"], "title": name, "type": "object"}
    elif extra < 0.33:
        parameters.pop("required")
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def _place(rng: Random, unseen: bool) -> tuple[str, JSON, JSON]:
    """A city, and perhaps a unit: what is added to the question, the property, the argument."""
    city = rng.choice(facts.CITIES) if rng.random() < 0.8 else invented(rng, unseen).capitalize()
    if rng.random() < 0.8:
        return city, {}, {}
    key = rng.choice(["unit", "format", "units"])
    asked = rng.choice(["celsius", "fahrenheit", ""])
    return city, {key: {"type": "string", "enum": ["celsius", "fahrenheit"]}}, {key: asked} if asked else {}


def weather(rng: Random, unseen: bool) -> Call:
    city, more, unit = _place(rng, unseen)
    question = rng.choice(
        [
            "What is the weather in {}?",
            "What's the weather like in {}?",
            "How is the weather in {}?",
            "Weather in {} please.",
            "Tell me the weather in {}.",
            "What is the weather like today in {}?",
            "Is it warm in {}?",
            "Give me the weather for {}.",
        ]
    ).format(city)
    if unit:
        question = question.rstrip("?.").removesuffix(" please") + f" in {next(iter(unit.values()))}" + question[-1]
    tool = offer(rng, "weather", unseen)
    parameters = tool["function"]["parameters"]
    key = next(iter(parameters["properties"]))
    parameters["properties"] |= more
    degrees, sky = rng.randrange(-9, 40), rng.choice(["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear"])
    label = rng.choice(["condition", "conditions", "description", "sky"])
    result = rng.choice(
        [
            json.dumps({rng.choice(["temperature", "temp", "degrees"]): degrees, label: sky}),
            json.dumps({rng.choice(["city", "location"]): city, "temperature": degrees, label: sky}),
            f"{degrees} degrees and {sky}",
            f"{sky}, {degrees} degrees",
            f"{degrees}°C, {sky}",
        ]
    )
    return Call(
        question,
        tool,
        {key: city} | unit,
        result,
        f"It is {degrees} degrees and {sky} in {city}.",
        "weather",
        "" if unit else city,
    )


def clock(rng: Random, unseen: bool) -> Call:
    city = _place(rng, unseen)[0]
    question = rng.choice(
        ["What time is it in {}?", "Tell me the time in {}.", "Current time in {}?", "What is the time in {}?"]
    )
    tool = offer(rng, "time", unseen)
    now = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
    result = rng.choice([now, json.dumps({"time": now}), f"It is {now}"])
    return Call(
        question.format(city), tool, dict.fromkeys(_keys(tool), city), result, f"It is {now} in {city}.", "time", city
    )


_PHRASES = {
    "add": (
        [
            "Calculate {} + {}",
            "What is {} + {}?",
            "Add {} and {}.",
            "What is the sum of {} and {}?",
            "What is {} plus {}?",
        ],
        "+",
    ),
    "subtract": (["Calculate {} - {}", "What is {} - {}?", "What is {} minus {}?", "Use a tool for {} - {}."], "-"),
    "multiply": (
        ["Calculate {} * {}", "Multiply {} by {}.", "What is the product of {} and {}?", "What is {} times {}?"],
        "*",
    ),
}


def arithmetic(rng: Random, unseen: bool) -> Call:
    intent = rng.choice(["add", "add", "subtract", "multiply"])
    phrases, sign = _PHRASES[intent]
    first, second = rng.randrange(10 ** rng.choice([1, 2, 2, 3])), rng.randrange(100)
    value = {"+": first + second, "-": first - second, "*": first * second}[sign]
    tool = offer(rng, intent, unseen)
    result = rng.choice([str(value), str(value), json.dumps({"result": value}), f"The result is {value}"])
    arguments = dict(zip(_keys(tool), (first, second), strict=True))
    return Call(
        rng.choice(phrases).format(first, second),
        tool,
        arguments,
        result,
        f"{first} {sign} {second} = {value}",
        intent,
    )


def timer(rng: Random, unseen: bool) -> Call:
    minutes = rng.randrange(1, 120)
    question = rng.choice(
        [
            "Set a timer for {} minutes.",
            "Timer for {} minutes please.",
            "Wake me in {} minutes.",
            "Start a {} minute timer.",
        ]
    )
    tool = offer(rng, "timer", unseen)
    answer = f"The timer is set for {minutes} minutes."
    return Call(question.format(minutes), tool, dict.fromkeys(_keys(tool), minutes), _done(rng), answer, "timer")


def email(rng: Random, unseen: bool) -> Call:
    name, subject = person(rng, unseen), rng.choice(facts.SUBJECTS)
    question = rng.choice(
        [
            "Send an email to {} about {}.",
            "Email {} about {}.",
            "Write to {} about {}.",
            "Write an email to {} about {}.",
        ]
    )
    tool = offer(rng, "email", unseen)
    arguments = dict(zip(_keys(tool), (name, subject), strict=True))
    return Call(
        question.format(name, subject),
        tool,
        arguments,
        _done(rng),
        f"I sent an email to {name} about {subject}.",
        "email",
    )


def search(rng: Random, unseen: bool) -> Call:
    query = (
        rng.choice(facts.SEARCHES) if rng.random() < 0.5 else " ".join(rng.sample(facts.WORDS, rng.choice([1, 2, 3])))
    )
    question = rng.choice(["Search for {}.", "Search the web for {}.", "Look up {}.", "Find {}.", "Search: {}"])
    tool = offer(rng, "search", unseen)
    found = rng.choice([f"Results for {query}", f"{rng.randrange(2, 90)} results", f"The best is {spelled(rng)}"])
    return Call(
        question.format(query),
        tool,
        dict.fromkeys(_keys(tool), query),
        found,
        f"Here is what I found: {found}",
        "search",
    )


def visit(rng: Random, unseen: bool) -> Call:
    site = rng.choice(facts.SITES)
    if rng.random() < 0.6:
        site = f"https://{invented(rng, unseen)}.{rng.choice(['com', 'org', 'net', 'ai'])}"
    question = rng.choice(["Navigate to {}", "Open {}", "Go to {}", "Visit {}", "Open the page {}"]).format(site)
    tool = offer(rng, "visit", unseen)
    return Call(question, tool, dict.fromkeys(_keys(tool), site), _done(rng), f"I opened {site}", "visit")


def light(rng: Random, unseen: bool) -> Call:
    room, on = rng.choice(facts.ROOMS), rng.random() < 0.5
    word = "on" if on else "off"
    question = rng.choice(
        ["Turn {1} the light in the {0}.", "Switch {1} the {0} light.", "Turn the light in the {0} {1}."]
    )
    tool = offer(rng, "light", unseen)
    arguments = dict(zip(_keys(tool), (room, on), strict=True))
    return Call(
        question.format(room, word), tool, arguments, _done(rng), f"The light in the {room} is {word}.", "light"
    )


def price(rng: Random, unseen: bool) -> Call:
    symbol = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.choice([3, 4])))
    value = f"{rng.randrange(5, 900)}.{rng.randrange(10, 100)}"
    question = rng.choice(["What is the price of {}?", "How much is {}?", "Get the stock price of {}.", "Price of {}?"])
    tool = offer(rng, "price", unseen)
    result = rng.choice([value, json.dumps({"price": float(value)}), f"{value} USD"])
    value = str(float(value)) if result.startswith("{") else value
    return Call(
        question.format(symbol),
        tool,
        dict.fromkeys(_keys(tool), symbol),
        result,
        f"The price of {symbol} is {value}.",
        "price",
    )


_VERBS = [
    "start",
    "stop",
    "play",
    "open",
    "close",
    "book",
    "order",
    "print",
    "read",
    "delete",
    "create",
    "show",
    "call",
    "load",
    "clean",
]
_NOUNS = [
    "model",
    "song",
    "file",
    "table",
    "ticket",
    "pizza",
    "letter",
    "book",
    "room",
    "report",
    "user",
    "game",
    "photo",
    "door",
    "channel",
    "list",
]


def named(rng: Random, unseen: bool) -> Call:
    """A tool that is seen for the first time: its name says what it does."""
    while True:
        verb, noun = rng.choice(_VERBS), rng.choice(_NOUNS)
        if held_out(f"{verb} {noun}") == unseen:
            break
    key = rng.choice(["name", "title", noun, f"{noun}_name", "id"])
    value = spelled(rng) if rng.random() < 0.5 else rng.choice(facts.WORDS)
    question = rng.choice(["{0} the {1} {2}.", "Please {0} {1} {2}.", "{0} {1} {2}", "Can you {0} the {1} {2}?"])
    question = question.format(verb, noun, value)
    about = rng.choice(
        [f"{verb.capitalize()} a {noun}", f"{verb.capitalize()} the {noun} with this name.", f"{verb} {noun}"]
    )
    tool = function(rng, rng.choice([f"{verb}_{noun}", f"{verb}{noun.capitalize()}"]), about, {key: {"type": "string"}})
    return Call(
        question[0].upper() + question[1:],
        tool,
        {key: value},
        _done(rng),
        f"Done: {verb} {noun} {value}.",
        f"{verb} {noun}",
    )


def _keys(tool: JSON) -> list[str]:
    return list(tool["function"]["parameters"]["properties"])


def _done(rng: Random) -> str:
    return rng.choice(["ok", "done", "success", '{"status": "ok"}', '{"success": true}', "OK."])


KINDS: tuple[Callable[[Random, bool], Call], ...] = (
    *(weather, weather, clock, arithmetic, arithmetic, timer, email, search, visit, light, price, named, named),
)


def failed(rng: Random, call: Call) -> Call:
    """The same call, whose tool reports an error."""
    reason = rng.choice(
        ["not found", "timeout", "no access", "service unavailable", "unknown " + rng.choice(facts.WORDS)]
    )
    result = rng.choice([f"Error: {reason}", json.dumps({"error": reason})])
    return replace(call, result=result, answer=f"The tool reported an error: {reason}.", city="")
