"""An answer as it comes: what the model thinks in dim letters, then what it says."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TextIO

from llamarunner.verbs.client import BrokenOff, Json
from llamarunner.verbs.terminal import harmless

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


@dataclass(slots=True)
class Answer:
    """Collects an answer while it writes it; thoughts are written to terminals only."""

    thoughts: bool = True  # whether to show them
    out: TextIO = field(default_factory=lambda: sys.stdout)
    text: str = ""
    last: Json = field(default_factory=dict)  # the object that ended it
    _thinking: bool = False
    _thought: str = ""  # the end of the thoughts so far

    def take(self, line: Json) -> None:
        message = line.get("message") or {}
        if thinking := message.get("thinking"):
            self._think(str(thinking))
        if text := message.get("content"):
            self._settle()
            self.text += text
            self._write(str(text))
        for call in message.get("tool_calls", ()):
            self._settle()
            self._write(f"{call.get('function')}\n")
        if line.get("done"):
            self.last = line

    def end(self) -> None:
        """End the line. Raises BrokenOff if the answer did not come to its end."""
        self.stop()
        if not self.last:
            raise BrokenOff("The server broke off its answer.")

    def stop(self) -> None:
        """End the line of an answer that nobody wants to go on."""
        self._settle()
        if not self.text.endswith("\n"):
            self._write("\n")

    def _think(self, text: str) -> None:
        if not self.thoughts or not self.out.isatty():
            return
        if not self._thinking:
            self.out.write(DIM)
            self._thinking = True
        self._write(text)
        self._thought = (self._thought + text)[-2:]

    def _settle(self) -> None:
        if self._thinking:
            blank = "\n" * (2 - len(self._thought) + len(self._thought.rstrip("\n")))
            self.out.write(f"{PLAIN}{blank}")
            self._thinking = False

    def _write(self, text: str) -> None:
        self.out.write(harmless(text, self.out))
        self.out.flush()


def figures(last: Json) -> str:
    """Say in a line how long an answer took, and how fast it was."""
    parts = [f"total {_seconds(last, 'total_duration')}", f"load {_seconds(last, 'load_duration')}"]
    for name, key in (("prompt", "prompt_eval"), ("answer", "eval")):
        count, took = last.get(f"{key}_count", 0), last.get(f"{key}_duration", 0)
        rate = f" at {count / took * 1e9:.1f}/s" if took else ""
        parts.append(f"{name} {count} tokens{rate}")
    return ", ".join(parts)


def _seconds(last: Json, key: str) -> str:
    return f"{last.get(key, 0) / 1e9:.2f} s"
