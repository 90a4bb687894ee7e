"""Training: what is asked of the decoder, and two stages."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..recipe import stage
from . import words
from .network import WINDOW_SECONDS, Whisper
from .phrases import SPEC, trained
from .speech import FRAMES_A_SECOND, Phrase
from .windows import Window, Windows

_ID = words.ids()
_TIME = _ID[words.TIMES[0]]
_LATEST_FIRST = 50  # faster-whisper lets no first time be later than 1.0 s (`max_initial_timestamp`)
_WORD = {word: _ID[words.spelled(word)] for word in words.ENGLISH + words.GERMAN}
_HEARD = {word: at + 1 for at, word in enumerate(words.ENGLISH + words.GERMAN)}  # classes of the CTC head
_NOT_ASKED = -1


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of the training."""

    name: str
    steps: int
    batch: int
    frames: int
    alone: bool  # windows with one whole phrase, not conversations
    rate: float  # of learning, at its highest
    last: float  # the share of it that is left at the end
    hearing: float  # weight of the CTC loss
    seed: int


STAGES = (
    Stage("words", 4500, 32, 320, True, 1.5e-3, 0.4, 0.4, 1),
    Stage("conversations", 3300, 24, FRAMES_A_SECOND * WINDOW_SECONDS, False, 1e-3, 0.01, 0.25, 2),
    Stage("finish", 1500, 24, FRAMES_A_SECOND * WINDOW_SECONDS, False, 6e-4, 0.01, 0.25, 3),
)


def _time(frame: int) -> int:
    """The token of a frame's time: a step is two frames."""
    return _TIME + frame // 2


def _answer(window: Window, timed: bool, translate: bool) -> list[int]:
    """What the decoder says of a window, up to the end of text."""

    def text(said: list[str]) -> list[int]:
        return [_WORD[words.IN_ENGLISH.get(word, word) if translate else word] for word in said]

    if not timed:
        return text(window.words)
    answer: list[int] = []
    for span in window.spans:
        answer += [_time(span.begin), *text(span.words), _time(span.end)]
    if not answer:
        return [_TIME]
    answer[0] = min(answer[0], _TIME + _LATEST_FIRST)
    return answer if window.go_on is None else [*answer, _time(window.go_on)]


def _asked(window: Window, prompt: list[int], rng: random.Random) -> tuple[list[int], list[int]]:
    """The tokens that go in, and for each the token that should come out."""
    translate, timed = rng.random() < 0.25, rng.random() < 0.75
    task = _ID[words.TRANSLATE if translate else words.TRANSCRIBE]
    given = [_ID[words.START], _ID[f"<|{window.language or 'en'}|>"], task]
    wanted = [_ID[f"<|{window.language}|>" if window.language else words.NO_SPEECH], _NOT_ASKED]
    if not timed:
        given.append(_ID[words.NO_TIMES])
        wanted.append(_NOT_ASKED)
    answer = _answer(window, timed, translate)
    return [*prompt, *given, *answer], [_NOT_ASKED] * len(prompt) + wanted + [*answer, _ID[words.END]]


def _prompt(longest: int, rng: random.Random) -> list[int]:
    """Something that was said before: phrases, times between them, sometimes words that nobody knows."""
    length = rng.randint(1, longest)
    said: list[int] = []
    while len(said) < length:
        chance = rng.random()
        if chance < 0.2:
            said += [rng.randrange(_ID[""]) for _ in range(rng.randint(1, 6))]
        elif chance < 0.5:
            said += [_time(rng.randint(0, 600)) for _ in range(rng.randint(1, 2))]
        else:
            phrase = rng.choice(SPEC) if rng.random() < 0.1 else trained(rng, "de" if rng.random() < 0.15 else "en")
            said += [_WORD[word] for word in phrase.split()]
    return [_ID[words.PREVIOUS], *said[:length]]


@dataclass(frozen=True, slots=True)
class Batch:
    frames: Tensor
    given: Tensor
    wanted: Tensor
    heard: list[list[int]]


def _batches(windows: Windows, of: Stage) -> Iterator[Batch]:
    """Without end. Prompts come in a third of the batches, long ones in few: they are dear."""
    rng = windows.rng
    while True:
        chance = rng.random()
        longest = 0 if chance < 0.65 else rng.randint(2, 40) if chance < 0.92 else rng.randint(40, 224)
        made = [windows.window(of.frames, of.alone) for _ in range(of.batch)]
        asked = [_asked(window, _prompt(longest, rng) if longest else [], rng) for window in made]
        rows = max(len(given) for given, _ in asked)
        yield Batch(
            torch.from_numpy(np.stack([window.frames for window in made])),
            torch.tensor([given + [_ID[words.END]] * (rows - len(given)) for given, _ in asked]),
            torch.tensor([wanted + [_NOT_ASKED] * (rows - len(wanted)) for _, wanted in asked]),
            [[_HEARD[word] for word in window.words] for window in made],
        )


def _loss(model: Whisper, batch: Batch, hearing: float) -> tuple[Tensor, float]:
    """The loss, and the share of words that are right. A time that is one step off counts half."""
    memory, mask = model.encode(batch.frames)
    asked = batch.wanted != _NOT_ASKED
    wanted = batch.wanted[asked]
    sure = model.scores(model.decode(batch.given, memory, mask)[asked]).log_softmax(-1)
    own = sure.gather(1, wanted[:, None])[:, 0]
    low, high = (wanted - 1).clamp(min=_TIME), (wanted + 1).clamp(max=sure.shape[1] - 1)
    beside = (sure.gather(1, low[:, None]) + sure.gather(1, high[:, None]))[:, 0]
    loss = -torch.where(wanted >= _TIME, 0.5 * own + 0.25 * beside, own).mean()
    text = wanted < _ID[words.END]
    share = (sure.argmax(1) == wanted)[text].float().mean().item()
    frames = model.word_of_frame(memory).log_softmax(-1).transpose(0, 1)
    heard = functional.ctc_loss(
        frames,
        torch.tensor([word for said in batch.heard for word in said]),
        torch.full((len(batch.heard),), len(frames)),
        torch.tensor([len(said) for said in batch.heard]),
        zero_infinity=True,
    )
    return loss + hearing * heard, share


def _rate(of: Stage, step: int) -> float:
    """Up over 200 steps, then down along half a cosine to `last`."""
    down = 0.5 * (1 + math.cos(math.pi * step / of.steps))
    return of.rate * min(1.0, (step + 1) / 200) * (of.last + (1 - of.last) * down)


def _run(model: Whisper, windows: Windows, of: Stage) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=of.rate, betas=(0.9, 0.98), weight_decay=0.01)
    batches, smooth = _batches(windows, of), 0.0
    with stage(of.name, of.steps) as told:
        for step in range(of.steps):
            optimizer.param_groups[0]["lr"] = _rate(of, step)
            loss, share = _loss(model, next(batches), of.hearing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            smooth += (share - smooth) * 0.02
            told(f"loss {loss.item():.2f}, words {smooth:.3f}")


def train(phrases: list[Phrase], speeches: list[Phrase], work: Path) -> Whisper:
    """Train a model on recordings. Each stage leaves `<name>.pt` in `work`; one that did is not repeated."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = Whisper()
    for of in STAGES:
        checkpoint = work / f"{of.name}.pt"
        if checkpoint.exists():
            model.load_state_dict(torch.load(checkpoint))
            continue
        _run(model, Windows(phrases, speeches, of.seed), of)
        torch.save(model.state_dict(), checkpoint)
    return model
