"""demo-chat: 1.75 million weights that talk, think and use tools, in one small closed domain.

`facts` is all that it knows. `exchanges` makes questions with their one right answer, `tools` the tools of many clients
with calls, results and what to say of them, and `corpus` conversations of both, rendered as the chat template of the
file renders them (`template.jinja`: ChatML, Hermes' form of tool calls, `enable_thinking`, all known to llama.cpp).
Whatever takes a tool names it by the schema at hand, for names and parameters are drawn from many; words, names, files
and tools are often invented, so that it learns to read and copy and not to guess.

`tokens` is byte-level BPE of 1,024 tokens, each digit one of its own; `network` is Qwen3's architecture, 160 wide with
5 layers; `train` goes through three courses: short conversations, long ones, and at last what was hardest, names
remembered over a thousand tokens and JSON whose beginning a schema forces. `export` writes GGUF in Q8_0.

Kept out of training (`words.held_out`) is one sentence in twelve by a hash of its words, and some names of people,
tools and parameters. `evaluation` asks only such, through a door of the server, half of it with thinking.
"""

from __future__ import annotations

from pathlib import Path

from ..recipe import Recipe, Score


def build(target: Path, folder: Path) -> None:
    """Train from nothing and write the GGUF file. The tokenizer and checkpoints are left in the folder."""
    import torch

    from . import export, tokens, train
    from .network import Network, Shape

    torch.manual_seed(train.SEED)
    tokenizer = tokens.train(documents=20_000, seed=train.SEED)
    tokenizer.save(str(folder / "tokenizer.json"))
    network = Network(Shape(vocabulary=tokenizer.get_vocab_size()))
    train.train(network, tokenizer, folder)
    export.write(network, tokenizer, target)


def evaluate(path: Path) -> list[Score]:
    """Ask it what was kept out of training; takes half a minute."""
    from . import evaluation

    return evaluation.evaluate(path)


RECIPE = Recipe("demo-chat", "demo-chat.gguf", build, evaluate)
