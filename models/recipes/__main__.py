"""`python -m models.recipes`: build or evaluate a demo model."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .recipe import CONSOLE, MODELS, Recipe, table

commands = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


class Model(StrEnum):
    CHAT = "demo-chat"
    EMBED = "demo-embed"
    VISION = "demo-vision"
    WHISPER = "demo-whisper"


def recipe(model: Model) -> Recipe:
    """Its recipe; imported here, since each brings heavy tools of its own."""
    package = importlib.import_module(f".{model.removeprefix('demo-')}", __package__)
    found: Recipe = package.RECIPE
    return found


@commands.command()
def build(
    model: Model,
    out: Annotated[Path | None, typer.Option(help="Where to write it; models/ if not told.")] = None,
    work: Annotated[Path | None, typer.Option(help="Keep data and checkpoints here.")] = None,
) -> None:
    """Make a demo model from nothing."""
    made = recipe(model)
    target = out or MODELS / made.target
    if not os.access(target.parent, os.W_OK):
        raise typer.BadParameter(f"Nothing can be written to {target.parent}.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        made.build(target, folder)
    CONSOLE.print(f"Wrote {target}")


@commands.command()
def evaluate(
    model: Model,
    path: Annotated[Path | None, typer.Option(help="The model to judge; the one in models/ if not told.")] = None,
    report: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Ask what was never trained, and print how much was right. Exits with 1 if a mark is missed."""
    made = recipe(model)
    judged = path or MODELS / made.target
    if not judged.exists():
        raise typer.BadParameter(f"{judged} does not exist.")
    if judged.is_dir() != (MODELS / made.target).is_dir():
        raise typer.BadParameter(
            f"{judged} must be a {'file' if judged.is_dir() else 'folder'}, as models/{made.target} is."
        )
    scores = made.evaluate(judged)
    CONSOLE.print(table(made.name, scores))
    if report:
        report.write_text(json.dumps([asdict(score) for score in scores], indent=1) + "\n", "utf-8")
    raise typer.Exit(0 if all(score.ok for score in scores) else 1)


if __name__ == "__main__":
    commands()
