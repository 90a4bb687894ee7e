"""demo-chat."""

from __future__ import annotations

from pathlib import Path

from ..recipe import Recipe, Score


def build(target: Path, folder: Path) -> None:
    """Train from nothing and write the GGUF file."""
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
    """Ask it what was kept out of training, through a door."""
    from . import evaluation

    return evaluation.evaluate(path)


RECIPE = Recipe("demo-chat", "demo-chat.gguf", build, evaluate)
