"""The command line: verbs. Here are those of the house; `verbs` has those that talk to a running server.

Only these two rooms print, and only this one exits.

Exit codes: 0 well, 1 failed, 2 wrong usage or settings, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from llamarunner import __version__
from llamarunner.errors import ConfigError, LlamaRunnerError
from llamarunner.verbs import commands
from llamarunner.verbs.terminal import harmless

if TYPE_CHECKING:
    from llamarunner.app import Running
    from llamarunner.catalog import ModelEntry
    from llamarunner.config import Loaded

CONFIG = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings, JSON or YAML; else the usual places.",
)
ROUNDS = click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of each arm.")
FIGURES = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there."
)


def main() -> None:
    """Run the command line."""
    open_standard_streams()
    try:
        code = cli.main(prog_name="llamarunner", standalone_mode=False)
    except click.Abort:
        fail("interrupted", code=130)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except ConfigError as error:
        fail(f"The settings are wrong:\n{error.message}", code=2)
    except LlamaRunnerError as error:
        fail(error.message)
    raise SystemExit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", "-v", message="%(version)s", help="Print the version.")
def cli() -> None:
    """One server that makes GGUF models on this machine speak every API that tools already use."""


@cli.group()
def bench() -> None:
    """Measure what the server costs, against going straight to the model."""


for verb in commands.VERBS:
    cli.add_command(verb)
cli.add_command(commands.listed, "list")


@cli.command()
@CONFIG
@click.option("--verbose", "-v", is_flag=True, help="Log more, the children's output too.")
@click.option("--log-format", type=click.Choice(["auto", "text", "json"]), help="Over logging.format of the settings.")
def serve(config: Path | None, verbose: bool, log_format: Literal["auto", "text", "json"] | None) -> None:
    """Open the doors and serve until interrupted."""
    loaded = load(config)
    from llamarunner import app, logs

    logs.set_up(loaded.settings.logging, format=log_format, verbose=verbose)

    def announce(house: Running) -> None:
        with contextlib.suppress(OSError):  # nobody may be listening
            print("\n".join(greeting(house, loaded)), flush=True)

    app.run(app.serve_and_leave(loaded, announce))


@cli.command()
@CONFIG
@click.option("--print-schema", is_flag=True, help="Print the JSON Schema of the settings.")
def check(config: Path | None, print_schema: bool) -> None:
    """Validate the settings and show what is in force, and which runtime would run the models."""
    from llamarunner import config as settings_room

    if print_schema:
        print(settings_room.schema_text(), end="")
        return
    loaded = load(config)
    from llamarunner.catalog import Catalog, remarks
    from llamarunner.fleet.launcher import Launcher

    launcher = Launcher(loaded.settings)
    kind, why = launcher.choose()
    catalog = Catalog(loaded.settings)
    entries = catalog.scan()
    print(json.dumps(settings_room.effective(loaded.settings), indent=2))
    print(f"\nSettings: {loaded.source or 'built-in defaults'}, valid.", file=sys.stderr)
    for path in loaded.passed_over:
        print(f"Passed over: {path}, which is not LlamaRunner's.", file=sys.stderr)
    for folder in loaded.settings.catalog.folders:
        if not folder.is_dir():
            print(f"Missing: {folder}, named in catalog.folders; it is looked for again every minute.", file=sys.stderr)
    for remark in remarks(loaded.settings, catalog):
        print(f"Remark: {remark}.", file=sys.stderr)
    print(f"Models: {', '.join(entry.id for entry in entries if not entry.error) or 'none'}.", file=sys.stderr)
    for entry in entries:
        if entry.error:
            print(f"Unusable: {entry.id}, {entry.error}.", file=sys.stderr)
    print(f"Runtime: {kind} {launcher.version()}, because {why}.", file=sys.stderr)


@bench.command("proxy")
@click.option("--model", help="The model to chat with; the demo model if none is named.")
@CONFIG
@ROUNDS
@FIGURES
def bench_proxy(model: str | None, config: Path | None, rounds: int, json_file: Path | None) -> None:
    """Chat through a door and straight to the same kind of child, turn and turn about; takes a minute or two."""
    from rich.console import Console

    from llamarunner.app import run
    from llamarunner.bench import proxy, tables

    loaded, console = load(config), Console()
    with console.status("starting") as status:
        report = run(proxy.measure(loaded.settings, model, rounds, status.update))
    for table in tables.proxy(report):
        console.print(table)
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")


@bench.command("audio")
@click.option("--model", metavar="NAME", help="The speech model, by name or folder; else the demo model.")
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="The recording; else a minute of speech.")
@CONFIG
@ROUNDS
@FIGURES
def bench_audio(model: str | None, file: Path | None, config: Path | None, rounds: int, json_file: Path | None) -> None:
    """Transcribe through a door and with faster-whisper directly, one by one and in batches, turn and turn about."""
    from rich.console import Console

    from llamarunner.app import run
    from llamarunner.bench import audio, tables

    loaded, console = load(config), Console()
    with console.status("starting") as status:
        report = run(audio.measure(loaded.settings, model, file, rounds, status.update))
    for table in tables.audio(report):
        console.print(table)
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")


def open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, before its number goes to a socket."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)  # Python has none for those that were closed
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # what the terminal has no letters for


def load(path: Path | None) -> Loaded:
    """Read the settings, wherever they are."""
    from llamarunner import config

    return config.load(path)


def greeting(house: Running, loaded: Loaded) -> Iterator[str]:
    """Say in a few lines where the doors are, which models were found, and what to try."""
    names = {"ollama": "Ollama", "lmstudio": "LM Studio", "wrapper": "Wrapper"}
    models = [entry for entry in house.services.catalog.entries if not entry.error]
    listed = (
        ", ".join(entry.id for entry in models[:8]) or "none yet; put GGUF files into a folder named in catalog.folders"
    )
    yield f"LlamaRunner {__version__}, settings: {loaded.source or 'built-in defaults'}"
    for door, url in house.urls.items():
        yield f"  {names[door]:<10} {url}"
    yield f"  {'Models':<10} {listed}" + (f" and {len(models) - 8} more" if len(models) > 8 else "")
    if models:
        yield f"  {'Try':<10} {example(house, models)}"


_TRIES: dict[str, tuple[str, dict[str, object]]] = {
    "generate": ("chat/completions", {"messages": [{"role": "user", "content": "What is the capital of France?"}]}),
    "embed": ("embeddings", {"input": "What is the capital of France?"}),
    "rerank": ("rerank", {"query": "the capital of France", "documents": ["Paris", "Rome"]}),
}


def example(house: Running, models: list[ModelEntry]) -> str:
    """A command that works as it stands, but for words in capitals: a key, a recording. A chat if any model can."""
    from llamarunner.server.resolve import native_task

    order = [*_TRIES, "transcribe"]
    task, model = min(((native_task(entry), entry.id) for entry in models), key=lambda found: order.index(found[0]))
    doors = {name: door for name, door in house.opened.proxies.doors() if name in house.urls}
    name = min(reversed(doors), key=lambda name: (bool(doors[name].api_keys), name == "wrapper"))
    key = "-H 'Authorization: Bearer YOUR_KEY' " if doors[name].api_keys else ""
    if task == "transcribe":
        return f"curl {key}{house.urls[name]}/v1/audio/transcriptions -F file=@YOUR_RECORDING.wav -F model={model}"
    path, body = _TRIES[task]
    return f"curl {key}{house.urls[name]}/v1/{path} -d '{json.dumps({'model': model} | body)}'"


def fail(message: str, code: int = 1) -> NoReturn:
    """Say what went wrong and leave."""
    print(f"llamarunner: {harmless(message, sys.stderr)}", file=sys.stderr)
    raise SystemExit(code)
