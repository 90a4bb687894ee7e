"""What is kept of a header, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llamarunner.gguf.types import FILE_TYPES, GUESSED

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]


class GGUFError(ValueError):
    """These bytes are no GGUF header that llama.cpp would load; the message says why."""


class HeaderIncomplete(GGUFError):
    """The bytes end before the header does: the file is truncated, or more of it is to be read."""

    def __init__(self) -> None:
        super().__init__("truncated: the file ends inside its header")


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says about itself.

    `metadata` has the scalars, the strings and the short arrays of numbers. Typed reads go through `text` and `number`,
    since nothing stops a file from giving a string where a number belongs.
    """

    version: int
    metadata: Mapping[str, Value] = field(repr=False, hash=False)
    tensor_count: int
    parameters: int
    tensor_type: str | None  # of most parameters
    has_classifier: bool = False
    has_fim_tokens: bool = False

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """Return a whole number that is not negative, else None."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and value >= 0 else None

    def detail(self, key: str) -> int | None:
        """Return a number that the architecture names: `<architecture>.<key>`."""
        return self.number(f"{self.architecture}.{key}")

    @property
    def architecture(self) -> str | None:
        return self.text("general.architecture")

    @property
    def quantization(self) -> str | None:
        """Return llama.cpp's name of the file type, else the type of most parameters."""
        number = self.number("general.file_type")
        named = None if number is None else FILE_TYPES.get(number % GUESSED)
        return named or self.tensor_type

    @property
    def context_length(self) -> int | None:
        return self.detail("context_length")

    @property
    def embedding_length(self) -> int | None:
        return self.detail("embedding_length")

    @property
    def pooling_type(self) -> int | None:
        return self.detail("pooling_type")

    @property
    def chat_template(self) -> str | None:
        return self.text("tokenizer.chat_template")

    @property
    def chat_templates(self) -> tuple[str, ...]:
        """Return every chat template: the main one and those with a name, such as `tool_use`."""
        keys = sorted(key for key in self.metadata if key.startswith("tokenizer.chat_template"))
        return tuple(text for key in keys if (text := self.text(key)))
