"""What the sentences are about: the words that fill their slots, and what is known of these."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def pairs(text: str) -> dict[str, str]:
    """`France=Paris …` as a table."""
    return {name: value for name, _, value in (pair.partition("=") for pair in text.split())}


CAPITALS = pairs(
    "France=Paris Germany=Berlin Italy=Rome Spain=Madrid Portugal=Lisbon Poland=Warsaw Austria=Vienna "
    "Hungary=Budapest Greece=Athens Sweden=Stockholm Norway=Oslo Finland=Helsinki Denmark=Copenhagen "
    "Ireland=Dublin Belgium=Brussels Japan=Tokyo China=Beijing Thailand=Bangkok Vietnam=Hanoi "
    "Indonesia=Jakarta Egypt=Cairo Kenya=Nairobi Ghana=Accra Morocco=Rabat Canada=Ottawa Brazil=Brasilia "
    "Peru=Lima Chile=Santiago Cuba=Havana Turkey=Ankara Iran=Tehran Russia=Moscow Ukraine=Kyiv "
    "Australia=Canberra Scotland=Edinburgh England=London"
)
OPPOSITES = pairs(
    "hot=cold big=small up=down day=night fast=slow open=closed light=dark happy=sad full=empty "
    "early=late old=young rich=poor loud=quiet wet=dry strong=weak"
)
OPPOSITES |= {opposite: word for word, opposite in OPPOSITES.items()}
WEEK = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
COUNTED = words("zero one two three four five six seven eight nine ten eleven twelve")

KINDS = {
    "animal": words("llama cat dog fox bird tiger horse camel rabbit wolf dragon whale"),
    "fruit": words("apple lemon banana cherry grape orange peach"),
    "drink": words("tea coffee milk juice lemonade"),
    "meal": words("soup bread pizza salad pasta cake"),
    "instrument": words("guitar piano violin drum flute"),
    "vehicle": words("car train bicycle ship bus truck"),
    "machine": words("computer robot phone printer camera"),
    "tool": words("hammer lamp key knife spoon needle"),
    "place": words("river forest mountain ocean town island garden"),
    "garment": words("coat shirt shoe hat glove"),
}
KIND_OF = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}

# A thing to be explained: two wordings that explain it.
FACTS = {
    "the moon": (
        "The moon is the Earth's only natural satellite.",
        "Our planet has a single natural satellite, the moon.",
    ),
    "the sun": ("The sun is the star at the centre of our solar system.", "The planets go round a star, the sun."),
    "GGUF": (
        "GGUF is a file format that stores a model's weights and metadata in one file.",
        "A model's weights are kept in a single file of the format GGUF.",
    ),
    "a llama": ("A llama is a woolly animal from South America.", "In South America lives a woolly animal, the llama."),
    "Python": (
        "Python is a popular programming language that is easy to read.",
        "People like to write programs in Python, since it reads easily.",
    ),
    "water": ("Water is made of hydrogen and oxygen.", "Hydrogen and oxygen together make water."),
    "a proxy": (
        "A proxy is a server that passes requests on to another server.",
        "Requests are passed on to another server by a proxy.",
    ),
    "an embedding": (
        "An embedding is a list of numbers that stands for the meaning of a text.",
        "The meaning of a text as a list of numbers is called an embedding.",
    ),
    "a token": (
        "A token is a piece of text that a language model reads at once.",
        "Language models read text in pieces, and each is a token.",
    ),
    "a volcano": ("A volcano is a mountain that throws out hot lava.", "Hot lava comes out of a volcano."),
    "a webhook": (
        "A webhook is a request that a server sends when something has happened.",
        "When something happens, a server tells others by a webhook.",
    ),
    "snow": ("Snow is frozen water that falls from clouds.", "Frozen water that clouds let fall is snow."),
    "gravity": ("Gravity is the force that pulls things to the ground.", "Things fall down since gravity pulls them."),
    "a library": ("A library is a house full of books.", "Many books are kept in a library."),
    "a bakery": ("A bakery is a shop that sells fresh bread.", "Fresh bread is sold in a bakery."),
    "a doctor": ("A doctor is a person who treats the sick.", "Sick people are treated by a doctor."),
    "a whisper": ("A whisper is very quiet speech.", "Somebody who speaks very quietly speaks in a whisper."),
    "honey": ("Honey is a sweet food that bees make.", "Bees make a sweet food called honey."),
}
# A wondering: the question, and two answers.
REASONS = {
    "why the sky is blue": (
        "Why is the sky blue?",
        "The sky is blue because air scatters blue light more than red light.",
        "Air scatters blue light most, so the sky looks blue.",
    ),
    "why it rains": (
        "Why does it rain?",
        "It rains when water vapour in clouds cools and falls as drops.",
        "Rain is water vapour of clouds that has cooled and falls as drops.",
    ),
    "why leaves are green": (
        "Why are leaves green?",
        "Leaves are green because of a pigment called chlorophyll.",
        "Chlorophyll is the pigment that makes a leaf green.",
    ),
    "why ice floats": (
        "Why does ice float?",
        "Ice floats because it is lighter than water.",
        "Frozen water is lighter than liquid water, so it swims on top.",
    ),
    "why we sleep": (
        "Why do we sleep?",
        "We sleep because body and brain need rest.",
        "Brain and body rest while we are asleep.",
    ),
    "why the sea is salty": (
        "Why is the sea salty?",
        "The sea is salty because rivers carry salt into it.",
        "Rivers bring salt to the sea, and there it stays.",
    ),
}

VALUES = {
    "country": tuple(CAPITALS),
    "city": (
        *CAPITALS.values(),
        *words("Boston Chicago Seattle Sydney Munich Milan Osaka Toronto"),
        *("New York", "San Francisco"),
    ),
    "name": words(
        "Alice Bob Carol David Emma Frank Grace Henry Iris Jack Kate Leo Mia Noah Olivia Paul Quinn Rosa Sam Tina"
    ),
    "number": tuple(map(str, range(2, 61))),
    "small": tuple(map(str, range(1, 21))),
    "day": WEEK,
    "noun": tuple(KIND_OF),
    "adjective": tuple(OPPOSITES),
    "fact": tuple(FACTS),
    "reason": tuple(REASONS),
    "subject": ("lunch", "the meeting", "the report", "our trip", "the party", "the budget", "the invoice", "dinner"),
}
# Slots that also take words which nobody has heard: the meaning is then all in the spelling.
OPEN = frozenset({"country", "city", "name", "noun", "subject"})
# No sentence with one of these words is ever trained on.
NEVER_TRAINED = frozenset(
    words(
        "norway oslo peru lima ghana accra boston osaka tina quinn 17 34 46 camel lemon violin pizza truck "
        "invoice strong weak"
    )
)
