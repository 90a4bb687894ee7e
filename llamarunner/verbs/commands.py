"""The verbs as the command line has them: their options, and what each asks of the server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, cast
from urllib.parse import quote

import click

from llamarunner.errors import LlamaRunnerError
from llamarunner.verbs.terminal import say

if TYPE_CHECKING:
    from llamarunner.verbs.chat import Chat
    from llamarunner.verbs.client import Client, Json

PARTS = ("modelfile", "parameters", "template", "system", "license")

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom a verb asks, and how it says what it hears."""

    client: Client
    as_json: bool


def talking(work: Callable[Concatenate[Asking, P], None]) -> Callable[..., None]:
    """Give a verb the options that all of them have."""

    @click.option(
        "--host",
        metavar="HOST:PORT",
        help="The server; else $LLAMARUNNER_HOST, $OLLAMA_HOST, or what the settings say.",
    )
    @click.option("--key", help="API key; else $LLAMARUNNER_API_KEY, or the first of the settings.")
    @click.option("--json", "as_json", is_flag=True, help="Print what the API answers.")
    @wraps(work)
    def verb(*args: P.args, **options: P.kwargs) -> None:
        from llamarunner.verbs.address import find
        from llamarunner.verbs.client import Client

        host, key, as_json = (cast("Any", options.pop(name)) for name in ("host", "key", "as_json"))
        work(Asking(Client(find(host, key)), as_json), *args, **options)

    return verb


class NotHere(LlamaRunnerError):
    """The model has to be pulled first."""


class OnlyHears(LlamaRunnerError):
    """The model knows no text."""


@click.command()
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Ask another registry without TLS.")
@talking
def pull(asking: Asking, model: str, insecure: bool) -> None:
    """Bring a model here.

    MODEL is NAME[:TAG] of the registry, or hf.co/OWNER/REPOSITORY[:QUANTISATION].
    """
    _pull(asking, model, insecure)


@click.command()
@click.argument("beginning", default="")
@talking
def ls(asking: Asking, beginning: str) -> None:
    """List the models that can be used; with BEGINNING, those whose names begin so."""
    from llamarunner.verbs import tables

    answer = asking.client.ask("GET", "/api/tags")
    answer = tables.beginning(tables.with_speech(answer, asking.client.ask("GET", "/v1/models")), beginning)
    if asking.as_json:
        _print(answer)
    elif beginning and not answer["models"]:
        say(f"There is no model whose name begins with '{beginning}'.")
    else:
        say("\n".join(tables.models(answer)))


listed = copy(ls)  # its other name
listed.hidden = True


@click.command()
@talking
def ps(asking: Asking) -> None:
    """List the models that are loaded."""
    from llamarunner.verbs import tables

    answer = asking.client.ask("GET", "/api/ps")
    for speech in tables.speech_of(asking.client.ask("GET", "/v1/models")):
        if speech.get("status") == "loaded":
            status = asking.client.ask("GET", f"/v1/models/{quote(str(speech['id']))}/status")
            answer = tables.with_running(answer, speech, status)
    _print(answer) if asking.as_json else say("\n".join(tables.running(answer)))


@click.command()
@click.argument("model")
@click.option("--only", type=click.Choice(PARTS), help="Print this alone.")
@click.option("--verbose", "-v", is_flag=True, help="With --json, tell the whole vocabulary too.")
@talking
def show(asking: Asking, model: str, only: str | None, verbose: bool) -> None:
    """Tell what is known of a model."""
    from llamarunner.verbs import tables
    from llamarunner.verbs.client import Refused

    try:
        answer = asking.client.ask("POST", "/api/show", {"model": model, "verbose": verbose})
        lines = tables.shown(answer)
    except Refused:
        if not (speech := _speech(asking.client, model)):
            raise
        answer, lines = speech, tables.described(speech)
    if asking.as_json:
        _print(answer)
    else:
        say(str(answer.get(only, "")) if only else "\n".join(lines))


@click.command()
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option("--system", default="", help="What the model is told before all else.")
@click.option("--think/--no-think", default=None, help="Let the model think first, or not.")
@click.option("--hide-thinking", is_flag=True, help="Do not show what it thinks.")
@click.option("--format", help="`json`, or a JSON schema.")
@click.option("--keep-alive", metavar="SPAN", help="How long the model stays, such as 10m.")
@click.option("--verbose", "-v", is_flag=True, help="Say how long answers take.")
@click.option("--yes", "-y", is_flag=True, help="Pull the model without asking if it is not here.")
@talking
def run(asking: Asking, /, model: str, prompt: tuple[str, ...], yes: bool, **how: Any) -> None:
    """Talk to a model in the terminal; with a PROMPT, or something piped in, get one answer."""
    from llamarunner.verbs.chat import Chat, converse

    thoughts = not how.pop("hide_thinking")
    piped, asked = _piped(), " ".join(prompt)
    interactive = not asked and sys.stdin.isatty()
    if interactive and asking.as_json:
        raise click.UsageError("An interactive chat cannot be JSON; give a PROMPT.")
    if not (interactive or piped or asked):
        raise click.UsageError("There is nothing to say; give a PROMPT, or pipe one in.")
    known = _fetch_if_absent(asking.client, model, yes)
    sees = "vision" in known.get("capabilities", ())
    chat = Chat(asking.client, model, thoughts=thoughts, sees=sees, **how)
    if interactive:
        chat.load()
        converse(chat)
    elif asking.as_json:
        chat.ask(asked, before=piped)
        _print_answer(chat)
    else:
        chat.say(asked, before=piped)


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@talking
def stop(asking: Asking, models: tuple[str, ...]) -> None:
    """Unload models, each as soon as it is idle."""
    for model in models:
        answer = asking.client.ask("POST", "/api/generate", {"model": model, "keep_alive": 0, "stream": False})
        if asking.as_json:
            _print_line(answer)


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@talking
def rm(asking: Asking, models: tuple[str, ...]) -> None:
    """Delete models that were pulled, created or copied."""
    for model in models:
        asking.client.ask("DELETE", "/api/delete", {"model": model})
        _print_line({"status": "success", "model": model}) if asking.as_json else print(f"deleted '{model}'")


@click.command()
@click.argument("source")
@click.argument("destination")
@talking
def cp(asking: Asking, source: str, destination: str) -> None:
    """Give the model SOURCE one more name, DESTINATION."""
    names = {"source": source, "destination": destination}
    asking.client.ask("POST", "/api/copy", names)
    _print_line({"status": "success", **names}) if asking.as_json else print(f"copied '{source}' to '{destination}'")


VERBS = (run, pull, ls, ps, show, stop, rm, cp)


def _piped() -> str:
    return "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode(errors="replace").strip()


def _pull(asking: Asking, model: str, insecure: bool = False) -> None:
    from llamarunner.verbs import progress

    with closing(asking.client.lines("/api/pull", {"model": model, "insecure": insecure})) as lines:
        if not asking.as_json:
            progress.follow(lines)
            return
        for line in progress.finished(lines):
            _print_line(line)


def _fetch_if_absent(client: Client, model: str, yes: bool) -> Json:
    """Pull a model that is not here, if the person wants it; what /api/show tells of it."""
    from llamarunner.verbs.client import Refused

    try:
        return client.ask("POST", "/api/show", {"model": model})
    except Refused as error:
        if error.answered != 404:
            if _speech(client, model):
                where = "send them to POST /v1/audio/transcriptions (docs/audio.md)"
                raise OnlyHears(f"The model '{model}' writes down what recordings say: {where}.") from None
            raise
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise NotHere(f"The model '{model}' is not here. Pull it with: llamarunner pull {model}")
        if not click.confirm(f"The model '{model}' is not here. Pull it?", default=True, err=True):
            click.get_current_context().exit(1)
    _pull(Asking(client, as_json=False), model)
    return client.ask("POST", "/api/show", {"model": model})


def _speech(client: Client, model: str) -> Json | None:
    """What is known of a model that hears recordings, which Ollama's API does not tell; None if it is none."""
    from llamarunner.verbs.client import Refused

    try:
        info = client.ask("GET", f"/v1/models/{quote(model)}/info")
    except Refused:
        return None
    return info if "transcription" in info.get("capabilities", ()) else None


def _print_answer(chat: Chat) -> None:
    from llamarunner.verbs.client import BrokenOff

    last: Json = {}
    with closing(chat.lines()) as lines:
        for last in lines:
            _print_line(last)
    if not last.get("done"):
        raise BrokenOff("The server broke off its answer.")


def _print(answer: Json) -> None:
    say(json.dumps(answer, indent=2, ensure_ascii=False))


def _print_line(line: Json) -> None:
    say(json.dumps(line, ensure_ascii=False))
