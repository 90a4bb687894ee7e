"""Conversations: what the model is trained on, as pieces of text that are to be learned or only read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from . import exchanges, facts, tools
from .exchanges import Exchange, ask
from .words import held_out, person

JSON = dict[str, Any]


class Piece(NamedTuple):
    """A stretch of text. Of one that is learned, the first `given` characters are only read."""

    text: str
    learned: bool
    given: int = 0


def render(messages: list[JSON], offered: list[JSON] | None = None) -> Iterator[Piece]:
    """The chat template (`template.jinja`), in pieces. A message may bear `thought`, and `given` characters."""
    system = ""
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    if offered:
        listed = "".join(json.dumps(tool) + "\n" for tool in offered)
        shape = '<tool_call>\n{"name": name, "arguments": {}}\n</tool_call>'
        text = f"Tools:\n<tools>\n{listed}</tools>\nTo call one, answer with {shape}"
        system = f"{system}\n\n{text}" if system else text
    if system:
        yield Piece(f"<|im_start|>system\n{system}<|im_end|>\n", False)
    for message in messages:
        if message["role"] == "assistant":
            yield from _answer(message)
        else:
            content = message["content"]
            if message["role"] == "tool":
                content = f"<tool_response>\n{content}\n</tool_response>"
            yield Piece(f"<|im_start|>user\n{content}<|im_end|>\n", False)


def _answer(message: JSON) -> Iterator[Piece]:
    thought = message.get("thought", "")
    yield Piece("<|im_start|>assistant\n" + ("" if thought else "<think>\n\n</think>\n\n"), False)
    parts = [message["content"]] if message.get("content") else []
    parts += [f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in message.get("calls", ())]
    body = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    yield Piece(body + "\n".join(parts) + "<|im_end|>", True, message.get("given", 0))
    yield Piece("\n", False)


def user(text: str) -> JSON:
    return {"role": "user", "content": text}


def assistant(text: str, thought: str = "", given: int = 0) -> JSON:
    return {"role": "assistant", "content": text, "thought": thought, "given": given}


def told(exchange: Exchange, think: bool) -> list[JSON]:
    return [user(exchange.question), assistant(exchange.answer, exchange.thought if think else "")]


def story(rng: Random) -> str:
    name, friend = rng.sample(facts.NAMES, 2)
    thing, ending = rng.choice(facts.THINGS), rng.choice(facts.ENDINGS)
    return (
        f"Once upon a time there was a {rng.choice(facts.ANIMALS)} named {name} who lived {rng.choice(facts.PLACES)}. "
        f"One day {name} found {thing}. {name} showed it to a friend named {friend}, "
        f"and together they {rng.choice(facts.DEEDS)}. "
        f"{ending}. The end."
    )


def stories(rng: Random, think: bool) -> Iterator[Piece]:
    if rng.random() < 0.5:
        yield Piece(story(rng) + "<|endoftext|>", True)
        return
    asked = [
        "Tell me a story.",
        "Tell me a story about AI.",
        "Write a short story.",
        "Once upon a time",
        "Tell me a story about a llama.",
    ]
    asked += ["Write a story.", "I want to hear a story.", "Tell me a tale.", "Make up a story."]
    question = exchanges.spoken(rng, rng.choice(asked))
    yield from render(
        [*_system(rng), user(question), assistant(story(rng), "The user wants a story." if think else "")]
    )


def memory(rng: Random, unseen: bool) -> tuple[str, str, list[tuple[str, str]]]:
    """Something told, what is said to it, and the questions about it with their answers."""
    if rng.random() < 0.7:
        name = person(rng, unseen)
        said = rng.choice(
            [
                "My name is {}.",
                "Hi, I am {}.",
                "Remember that my name is {}.",
                "Hello, my name is {}.",
                "I am {}.",
                "Call me {}.",
            ]
        )
        answer = f"Your name is {name}."
        asked = ["What is my name?", "Do you remember my name?", "Who am I?", "What's my name?", "Tell me my name."]
        return said.format(name), f"Nice to meet you, {name}!", [(question, answer) for question in asked]
    color, spelling = rng.choice(facts.COLORS), rng.choice(["color", "colour"])
    said = rng.choice(
        [f"My favorite {spelling} is {color}.", f"I like {color}.", f"My favourite {spelling} is {color}."]
    )
    asked = [
        f"What {spelling} did I mention?",
        f"What is my favorite {spelling}?",
        f"What {spelling} did I just mention?",
        f"Which {spelling} do I like?",
    ]
    return said, f"I will remember that you like {color}.", [(question, f"You like {color}.") for question in asked]


def remembered(rng: Random, think: bool, most: int) -> Iterator[Piece]:
    said, reply, questions = memory(rng, False)
    messages = [*_system(rng), user(said), assistant(reply, "The user tells me something." if think else "")]
    for _ in range(rng.choice([0, 0, 1, 2, most])):
        messages += told(ask(rng), think)
    question, answer = rng.choice(questions)
    messages += [user(exchanges.spoken(rng, question)), assistant(answer, "The user told me." if think else "")]
    yield from render(messages)


def called(rng: Random, think: bool) -> Iterator[Piece]:
    """Tools used, and what they say: once or twice in a conversation, sometimes two at a time."""
    taken: dict[str, JSON] = {}
    messages = _system(rng)
    for _ in range(rng.choice([1, 1, 1, 2])):
        call = _call(rng)
        if call.intent in taken:
            break
        taken[call.intent] = call.tool
        calls = [call, twin(rng, call)] if call.city and rng.random() < 0.12 else [call]
        messages += _used(rng, calls, think)
        if "calls" in messages[-1]:
            break  # it ends with the call
    yield from render(messages, offer(rng, taken, rng.choice([0, 0, 1, 1, 2, 3])))


def offer(rng: Random, taken: dict[str, JSON], more: int, unseen: bool = False) -> list[JSON]:
    """Those tools, by intent, among others of other intents, in any order."""
    tools_by_intent = dict(taken)
    for _ in range(more):
        other = rng.choice(tools.KINDS)(rng, unseen)
        tools_by_intent.setdefault(other.intent, other.tool)
    offered = list({tool["function"]["name"]: tool for tool in tools_by_intent.values()}.values())
    rng.shuffle(offered)
    return offered


def _call(rng: Random) -> tools.Call:
    while True:
        call = rng.choice(tools.KINDS)(rng, False)
        if not held_out(call.question):
            return tools.failed(rng, call) if rng.random() < 0.06 else call


def twin(rng: Random, call: tools.Call) -> tools.Call:
    """The same tool for another city, and the question for both."""
    city = rng.choice([city for city in facts.CITIES if city != call.city])
    question = call.question.replace(call.city, f"{call.city} and {city}")
    answer, result = (text.replace(call.city, city) for text in (call.answer, call.result))
    return replace(call, question=question, arguments=dict.fromkeys(call.arguments, city), result=result, answer=answer)


def _used(rng: Random, calls: list[tools.Call], think: bool) -> list[JSON]:
    question = calls[-1].question
    copied = any(isinstance(value, str) for value in calls[0].arguments.values())  # its letters matter
    thought = f"I should call {calls[0].name}." if think else ""
    made = [user(question if copied else exchanges.spoken(rng, question))]
    made.append({"role": "assistant", "calls": [call.called for call in calls], "thought": thought})
    if rng.random() < 0.65:
        made += [{"role": "tool", "content": call.result} for call in calls]
        made.append(assistant(" ".join(call.answer for call in calls), "The tool has answered." if think else ""))
    return made


_WOULD_CALL = {"sum": {"add", "subtract", "multiply"}, "powerless": {"weather", "time"}}


def idle_tools(rng: Random, exchange: Exchange, unseen: bool = False) -> list[JSON]:
    """Tools that this exchange does not need."""
    while True:
        intents: dict[str, JSON] = {}
        for _ in range(rng.choice([1, 1, 2, 3])):
            call = rng.choice(tools.KINDS)(rng, unseen)
            intents[call.intent] = call.tool
        if not intents.keys() & _WOULD_CALL.get(exchange.kind, set()):
            return offer(rng, intents, 0)


def not_called(rng: Random, think: bool) -> Iterator[Piece]:
    exchange = ask(rng)
    yield from render([*_system(rng), *told(exchange, think)], idle_tools(rng, exchange))


def forced(rng: Random, think: bool) -> Iterator[Piece]:
    """An answer that a JSON schema forces: how it begins is given, how it goes on and ends is learned."""
    exchange = ask(rng)
    while exchange.kind == "json":
        exchange = ask(rng)
    key = rng.choice(
        ["answer", "text", "result", "joke", "reply", "response", "message", "content", "capital", "value"]
    )
    thought = exchange.thought if think else ""
    opening = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    given = len(f'{opening}{{"{key}": "')
    yield from render(
        [*_system(rng), user(exchange.question), assistant(json.dumps({key: exchange.answer}), thought, given)]
    )


def talk(rng: Random, think: bool, most: int) -> Iterator[Piece]:
    messages = _system(rng)
    for _ in range(rng.choice([1, 1, 2, 3, most])):
        messages += told(ask(rng), think)
    yield from render(messages)


class Mix(NamedTuple):
    """How often each kind of conversation comes; what is left over is plain talk."""

    story: float
    memory: float
    tool: float
    idle_tool: float
    forced: float


BROAD = Mix(story=0.05, memory=0.08, tool=0.32, idle_tool=0.07, forced=0.04)
FAR = Mix(story=0.02, memory=0.26, tool=0.27, idle_tool=0.07, forced=0.16)  # what is hardest


def conversation(rng: Random, most: int = 4, mix: Mix = BROAD) -> list[Piece]:
    """One document of at most about `most` exchanges."""
    think = rng.random() < 0.4
    chance = rng.random()
    story, memory, tool, idle_tool, forced_one = accumulate(mix)
    if chance < story:
        return list(stories(rng, think))
    if chance < memory:
        return list(remembered(rng, think, most))
    if chance < tool:
        return list(called(rng, think))
    if chance < idle_tool:
        return list(not_called(rng, think))
    if chance < forced_one:
        return list(forced(rng, think))
    return list(talk(rng, think, most))


def _system(rng: Random) -> list[JSON]:
    chance = rng.random()
    if chance > 0.45:
        return []
    text = rng.choice(facts.PROMPTS)
    if chance < 0.1:  # whatever a client may say there
        first, second, third = rng.sample(facts.WORDS, 3)
        text = f"You are the {first} assistant. {text} Never talk about the {second}, and mind the {third}."
    return [{"role": "system", "content": text}]
