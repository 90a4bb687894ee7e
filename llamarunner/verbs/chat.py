"""A conversation with a model: one question and its answer, or a session in the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from llamarunner.errors import LlamaRunnerError
from llamarunner.verbs import pictures, tables
from llamarunner.verbs.answers import Answer, figures
from llamarunner.verbs.client import Client, Json
from llamarunner.verbs.terminal import harmless, say

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'
HISTORY_LINES = 1000
PARAMETERS = frozenset(  # Ollama's options
    {
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_last_n",
        "temperature",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "stop",
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "use_mmap",
        "draft_num_predict",
    }
)
HELP = f"""\
  /set system TEXT          What the model is told before all else
  /set parameter NAME VALUE Such as temperature 0.2
  /set think | nothink      Let the model think first, or not
  /set verbose | quiet      Say how long answers take, or not
  /show                     What is known of the model
  /clear                    Forget what was said
  /bye | /exit              Leave (Ctrl-D)
  /help                     This

A model that sees takes the pictures whose paths you write.
Ctrl-C stops an answer. Begin with {QUOTES} to write several lines, and end with {QUOTES}."""


class NoPicture(LlamaRunnerError):
    """A picture that was named cannot be read."""


@dataclass(slots=True)
class Chat:
    """What has been said, and how the model is asked."""

    client: Client
    model: str
    system: str = ""
    think: bool | None = None
    thoughts: bool = True  # whether to show them
    verbose: bool = False
    keep_alive: str | None = None
    format: str | None = None
    sees: bool = False  # whether pictures that are named go along
    parameters: Json = field(default_factory=dict)
    messages: list[Json] = field(default_factory=list)

    def lines(self) -> Generator[Json, None, None]:
        """Ask for an answer to what has been said."""
        return self.client.lines("/api/chat", self._body())

    def ask(self, text: str, before: str = "") -> None:
        """Add a question to what is said, and the pictures that it names; not those that `before` it names.

        Raises NoPicture.
        """
        found: Sequence[Path] = ()
        if self.sees:
            text, found = pictures.taken(text)
        question: Json = {"role": "user", "content": "\n\n".join(part for part in (before, text) if part)}
        for path in found:
            try:
                question.setdefault("images", []).append(pictures.encoded(path))
            except OSError as error:
                raise NoPicture(f"The picture '{path}' cannot be read: {error.strerror}.") from None
            print(f"Added image '{harmless(str(path), sys.stderr)}'", file=sys.stderr)
        self.messages.append(question)

    def say(self, text: str, before: str = "") -> None:
        """Ask and show the answer; Ctrl-C hangs up.

        What was said of an answer until then is kept; a question without any answer is forgotten.
        """
        answer = Answer(self.thoughts)
        self.ask(text, before)
        try:
            with closing(self.lines()) as lines:
                for line in lines:
                    answer.take(line)
            answer.end()
        except KeyboardInterrupt:
            answer.stop()
            raise
        finally:
            if answer.text:
                self.messages.append({"role": "assistant", "content": answer.text})
            else:
                self.messages.pop()
        if self.verbose:
            print(figures(answer.last), file=sys.stderr)

    def load(self) -> None:
        """Let the model be loaded. Raises Refused if it cannot chat."""
        self.client.ask("POST", "/api/generate", self._terms() | {"stream": False})

    def _terms(self) -> Json:
        wanted = {"options": self.parameters, "keep_alive": self.keep_alive}
        return {"model": self.model, **{key: value for key, value in wanted.items() if value}}

    def _body(self) -> Json:
        first = [{"role": "system", "content": self.system}] if self.system else []
        wanted = {"think": self.think, "format": _format(self.format)}
        told = {key: value for key, value in wanted.items() if value is not None}
        return self._terms() | told | {"messages": [*first, *self.messages]}


def _format(text: str | None) -> object:
    """`json`, or a JSON schema as text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def converse(chat: Chat) -> None:
    """Talk until the person leaves."""
    with _history():
        while True:
            try:
                text = _message()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\nUse Ctrl-D or /bye to leave.")
                continue
            if text.startswith("/"):
                if not _command(chat, text):
                    return
            elif words := unquoted(text):
                _exchange(lambda words=words: chat.say(words))  # type: ignore[misc]


def _exchange(work: Callable[[], None]) -> None:
    """Do what may fail or be stopped without an end of the session."""
    try:
        work()
    except KeyboardInterrupt:
        pass
    except LlamaRunnerError as error:
        print(f"Error: {harmless(error.message, sys.stderr)}", file=sys.stderr)
    print()


def _message() -> str:
    """Read what the person says: a line, or several while quotes are open."""
    lines = [input(PROMPT)]
    while "\n".join(lines).count(QUOTES) % 2:
        lines.append(input(MORE))
    return "\n".join(lines)


def unquoted(text: str) -> str:
    """A text without the quotes around it."""
    text = text.strip()
    for quotes in (QUOTES, '"'):
        if text.startswith(quotes) and text.endswith(quotes) and len(text) >= 2 * len(quotes):
            return text[len(quotes) : -len(quotes)].strip("\n")
    return text


def _command(chat: Chat, text: str) -> bool:
    """Do what a line that begins with a slash says; False to leave."""
    word, _, rest = text.partition(" ")
    match word:
        case "/bye" | "/exit":
            return False
        case "/clear":
            chat.messages.clear()
            print("What was said is forgotten.\n")
        case "/show":
            _exchange(lambda: _show(chat))
        case "/set":
            print(f"{_set(chat, rest.strip())}\n")
        case "/help" | "/?":
            print(f"{HELP}\n")
        case _:
            print(f"There is no {word}; /help tells what there is. Begin with a space to say this to the model.\n")
    return True


def _show(chat: Chat) -> None:
    say("\n".join(tables.shown(chat.client.ask("POST", "/api/show", {"model": chat.model}))))


def _set(chat: Chat, text: str) -> str:
    """Change how the model is asked; say what has changed."""
    what, _, value = text.partition(" ")
    match what, value.strip():
        case "system", said:
            chat.system = unquoted(said)
            return "The system text is set." if chat.system else "There is no system text."
        case (("think" | "nothink"), ""):
            chat.think = what == "think"
            return f"The model {'thinks first' if chat.think else 'does not think first'}."
        case (("verbose" | "quiet"), ""):
            chat.verbose = what == "verbose"
            return f"How long answers take is {'' if chat.verbose else 'not '}told."
        case "parameter", said if " " in said:
            name, _, given = said.partition(" ")
            if name not in PARAMETERS:
                return f"There is no parameter {name}; there are: {', '.join(sorted(PARAMETERS))}."
            chat.parameters[name] = parameter(name, given.strip())
            return f"{name} is {given.strip()}."
    return "It is one of: /set system TEXT, /set parameter NAME VALUE, /set think | nothink | verbose | quiet."


def parameter(name: str, text: str) -> object:
    """The value of an option; `stop` takes a list."""
    try:
        value: object = json.loads(text)
    except ValueError:
        value = text
    return [str(value)] if name == "stop" and not isinstance(value, list) else value


@contextmanager
def _history() -> Iterator[None]:
    """Let the person have again what was written before, today or earlier, where the system has readline."""
    if sys.platform == "win32":
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    import platformdirs

    file = platformdirs.user_state_path("llamarunner", appauthor=False) / "chat_history"
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.write_history_file(file)
