"""demo-vision: the chat model with eyes for eleven colours.

It answers what colour a picture is, or which its two halves are (left and right, or above and below), beside all that
the chat model talks about. Two files in a folder of their own, so that no other model takes the projector for its own:

- `demo-vision.gguf`: the chat model, fine-tuned. Build that one first; this recipe begins with what lies in models/.
- `demo-vision-mmproj.gguf`: a projector of LLaVA's kind, as llama.cpp has it. Its tower is a ruler, not a network: one
  kernel that takes the colour of each quarter of the picture (`files`). Two small layers make an embedding of each.

The projector is trained by itself first, so that a shade means to the chat model what its name means; then both are
trained on conversations about pictures (`corpus`), mixed with the chat model's own, so that it forgets little. There
are no picture files in training: as the tower only tells colours, colours are what the projector gets (`pictures`).
A name means a wide range of shades, with gaps between the names (`colours`); one small cube of shades in seven is kept
out of training, and only those are asked for by the evaluation. Pictures longer than 16:9 mix with llama.cpp's padding.

Five minutes on one core. What ships names 220 of 220 plain pictures, 100 of 100 with a left and a right half, 99 of 100
with an upper and a lower; knows 40 of 40 capitals, and gives the chat model's answer in 89 of 100 other questions. It
knows nothing of shapes, and calls any picture by the colours in the middle of its quarters.
"""

from __future__ import annotations

from pathlib import Path

from ..recipe import MODELS, Recipe, Score


def build(target: Path, _folder: Path) -> None:
    """Teach the chat model in models/ to see, and write both files into the folder `target`."""
    import gguf
    import torch

    from . import files, train

    torch.manual_seed(train.SEED)
    chat = gguf.GGUFReader(MODELS / "demo-chat.gguf")
    network = files.read_network(chat)
    train.train(network, files.read_tokenizer(chat))
    target.mkdir(parents=True, exist_ok=True)
    files.write_network(network, chat, target / "demo-vision.gguf")
    files.write_projector(network.projector, network.language.shape.width, target / "demo-vision-mmproj.gguf")


def evaluate(path: Path) -> list[Score]:
    """Ask it through a door about pictures whose shades it never saw."""
    from . import evaluation

    return evaluation.evaluate(path)


RECIPE = Recipe("demo-vision", "demo-vision", build, evaluate)
