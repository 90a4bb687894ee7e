"""How each intent is said.

A template names its fields in braces. The slots of the intent are fields; so are those that follow from them
(`{capital}` from `{country}`), where they are known: a template is used only where all its fields are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intent:
    """What somebody may want: the kinds of its slots by name, and how it and its answer are said."""

    slots: dict[str, str]
    asked: tuple[str, ...]
    answered: tuple[str, ...] = ()
    any_order: bool = False  # the slots may change places


INTENTS = {
    "capital": Intent(
        {"country": "country"},
        (
            "What is the capital of {country}?",
            "What's the capital of {country}?",
            "Capital of {country}?",
            "Tell me the capital of {country}.",
            "Which city is the capital of {country}?",
            "Name the capital of {country}.",
            "What is {country}'s capital?",
            "{country}: capital city",
            "I need the name of {country}'s capital city.",
            "Which city does {country} have as its capital?",
        ),
        (
            "The capital of {country} is {capital}.",
            "{capital} is the capital of {country}.",
            "{country}'s capital is {capital}.",
            "{country} is governed from {capital}.",
        ),
    ),
    "plus": Intent(
        {"a": "small", "b": "small"},
        (
            "What is {a} + {b}?",
            "What is {a}+{b}?",
            "What is {a} plus {b}?",
            "Calculate {a} + {b}",
            "{a} + {b}",
            "Add {a} and {b}.",
            "What is the sum of {a} and {b}?",
            "How much is {a} plus {b}?",
        ),
        ("{a} + {b} = {sum}", "{a} plus {b} is {sum}.", "The sum of {a} and {b} is {sum}."),
        any_order=True,
    ),
    "times": Intent(
        {"a": "small", "b": "small"},
        (
            "What is {a} * {b}?",
            "What is {a}*{b}?",
            "What is {a} times {b}?",
            "Calculate {a} * {b}",
            "Multiply {a} by {b}.",
            "What is the product of {a} and {b}?",
            "How much is {a} times {b}?",
        ),
        ("{a} * {b} = {product}", "{a} times {b} is {product}.", "The product of {a} and {b} is {product}."),
        any_order=True,
    ),
    "minus": Intent(
        {"a": "small", "b": "small"},
        (
            "What is {a} - {b}?",
            "What is {a}-{b}?",
            "What is {a} minus {b}?",
            "Calculate {a} - {b}",
            "Take {b} from {a}.",
            "Subtract {b} from {a}.",
            "How much is {a} minus {b}?",
        ),
        ("{a} - {b} = {difference}", "{a} minus {b} is {difference}.", "{a} less {b} leaves {difference}."),
    ),
    "count": Intent(
        {"n": "small"},
        (
            "Count to {n}",
            "Count from 1 to {n}.",
            "Count up to {n}.",
            "List the numbers from 1 to {n}.",
            "Say all numbers up to {n}.",
            "I want to hear you count until {n}.",
        ),
        ("{numbers}", "Here are the numbers up to {n}: {numbers}"),
    ),
    "timer": Intent(
        {"n": "number"},
        (
            "Set a timer for {n} minutes.",
            "Timer for {n} minutes.",
            "Wake me in {n} minutes.",
            "Start a timer of {n} minutes.",
            "Ring when {n} minutes have passed.",
            "Remind me after {n} minutes.",
        ),
        ("The timer is set for {n} minutes.", "I will ring in {n} minutes."),
    ),
    "weather": Intent(
        {"city": "city"},
        (
            "What is the weather in {city}?",
            "What's the weather like in {city}?",
            "How is the weather in {city}?",
            "Weather in {city}",
            "Tell me the weather in {city}.",
            "Is it sunny or rainy in {city}?",
            "Do I need an umbrella in {city}?",
        ),
        ("It is {degrees} degrees and {sky} in {city}.", "In {city} it is {sky}, {degrees} degrees."),
    ),
    "time": Intent(
        {"city": "city"},
        (
            "What time is it in {city}?",
            "Tell me the time in {city}.",
            "Current time in {city}?",
            "How late is it in {city}?",
            "What does the clock say in {city}?",
            "Local time of {city}",
        ),
        ("It is {clock} in {city}.", "The clock in {city} says {clock}."),
    ),
    "flight": Intent(
        {"city": "city"},
        (
            "Find a flight to {city}.",
            "I want to fly to {city}.",
            "Book me a plane to {city}.",
            "Which planes go to {city}?",
            "Flights to {city}",
        ),
        ("Here are the flights to {city}.",),
    ),
    "e-mail": Intent(
        {"name": "name", "subject": "subject"},
        (
            "Send an email to {name} about {subject}.",
            "Email {name} about {subject}.",
            "Write to {name} about {subject}.",
            "Tell {name} by email about {subject}.",
            "{subject}: send {name} a message.",
            "Let {name} know about {subject}.",
        ),
        ("I sent an email to {name} about {subject}.", "{name} got your message about {subject}."),
    ),
    "introduction": Intent(
        {"name": "name"},
        (
            "My name is {name}.",
            "I am {name}.",
            "Hi, I am {name}.",
            "Call me {name}.",
            "Remember that my name is {name}.",
            "People call me {name}.",
        ),
        ("Nice to meet you, {name}!", "Your name is {name}."),
    ),
    "call": Intent(
        {"name": "name"},
        ("Call {name} on the phone.", "Phone {name}.", "Ring {name} up.", "Make a phone call to {name}."),
        ("I am phoning {name} now.",),
    ),
    "opposite": Intent(
        {"word": "adjective"},
        (
            "What is the opposite of {word}?",
            "Opposite of {word}?",
            "Tell me the opposite of {word}.",
            "What is the contrary of {word}?",
            "Which word means the reverse of {word}?",
        ),
        ("The opposite of {word} is {opposite}.", "{opposite} is the opposite of {word}."),
    ),
    "spelling": Intent(
        {"word": "adjective"},
        ("How do you spell {word}?", "Spell {word}.", "How is {word} written?", "Give me the letters of {word}."),
        ("{word} is spelled {letters}.",),
    ),
    "day after": Intent(
        {"day": "day"},
        (
            "What day comes after {day}?",
            "Which day is after {day}?",
            "What follows {day}?",
            "Which weekday comes next after {day}?",
        ),
        ("The day after {day} is {next}.", "After {day} comes {next}."),
    ),
    "day before": Intent(
        {"day": "day"},
        ("What day comes before {day}?", "Which day is before {day}?", "Which weekday precedes {day}?"),
        ("The day before {day} is {previous}.", "Before {day} comes {previous}."),
    ),
    "fact": Intent(
        {"topic": "fact"},
        (
            "What is {topic}?",
            "Tell me about {topic}.",
            "Explain {topic}.",
            "What does {topic} mean?",
            "I would like to learn what {topic} is.",
            "{topic}",
        ),
        ("{definition}", "{explanation}"),
    ),
    "reason": Intent(
        {"topic": "reason"},
        ("{question}", "Tell me {topic}.", "Explain {topic}.", "I wonder {topic}.", "Do you know {topic}?"),
        ("{definition}", "{explanation}"),
    ),
    "joke": Intent(
        {"noun": "noun"},
        (
            "Tell me a joke about {a_noun}.",
            "Do you know a joke about {a_noun}?",
            "Make me laugh about {a_noun}.",
            "Something funny with {a_noun}",
        ),
    ),
    "story": Intent(
        {"noun": "noun"},
        (
            "Tell me a story about {a_noun}.",
            "Write a short story about {a_noun}.",
            "I want to read a tale of {a_noun}.",
            "A bedtime story with {a_noun}",
        ),
        ("{tale}",),
    ),
    "search": Intent(
        {"noun": "noun"},
        (
            "Search the web for {a_noun}.",
            "Look up {noun} online.",
            "Search for {noun}.",
            "Find pages about {a_noun} on the internet.",
        ),
        ("Here is what I found on the web about {a_noun}.",),
    ),
    "price": Intent(
        {"noun": "noun"},
        (
            "How much does {a_noun} cost?",
            "What is the price of {a_noun}?",
            "Price of {a_noun}",
            "What do I pay for {a_noun}?",
        ),
        ("The price of {a_noun} is {degrees} euros.",),
    ),
    "thing": Intent(
        {"noun": "noun"},
        ("{noun}", "{a_noun}", "the {noun}", "This is {a_noun}.", "I can see {a_noun}.", "There is {a_noun} here."),
        ("{a_noun} is a kind of {kind}.",),
    ),
    "list": Intent(
        {"a": "noun", "b": "noun", "c": "noun"},
        (
            "{a} {b} {c}",
            "{a}, {b} and {c}",
            "the {a} with the {b} and the {c}",
            "There are the {a} and the {b}, and near them the {c}.",
            "Repeat after me: {a} {b} {c}",
        ),
        any_order=True,
    ),
    "greeting": Intent(
        {},
        (
            "Hello!",
            "Hi",
            "Hey there",
            "Hello, how are you?",
            "Good morning",
            "Hi there!",
            "Say hello.",
            "Good day to you",
        ),
        ("Hello! How can I help you today?",),
    ),
    "farewell": Intent({}, ("Goodbye!", "Bye", "See you later.", "Bye bye, until tomorrow", "I am leaving now, bye.")),
    "thanks": Intent({}, ("Thank you!", "Thanks", "Thanks a lot.", "Many thanks for your help.", "I am grateful.")),
    "identity": Intent(
        {},
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Tell me about yourself.",
            "Introduce yourself.",
            "Are you a person or a model?",
        ),
        ("I am the LlamaRunner demo model, a tiny model that runs anywhere.",),
    ),
    "my name": Intent({}, ("What is my name?", "Do you remember my name?", "Who am I?", "How am I called?")),
    "any joke": Intent({}, ("Tell me a joke", "Make me laugh.", "Do you know a joke?", "Say something funny.")),
}

# Said before or after a request without changing it.
FRAMES = (
    *("Please: {}", "Hey, {}", "Quick question: {}", "I have a question. {}", "Assistant, {}", "{} Thanks."),
    *("{} Please answer.", "Now: {}", "One more thing. {}", "So, {}"),
)
