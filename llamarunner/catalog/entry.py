"""`ModelEntry`: one model that exists on this machine, as every other room sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from llamarunner.catalog.memory import kv_cache_bytes
from llamarunner.gguf import Header

_PROCESS_BYTES = 64 << 20  # of llama.cpp itself, and of its smallest compute buffers
_COMPUTE_SHARE = 0.05  # of the weights, for compute buffers


Format = Literal["GGUF", "CTranslate2"]


class Capability(StrEnum):
    """What a model can be asked for."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    VISION = "vision"
    TOOLS = "tools"
    THINKING = "thinking"
    FIM = "fim"
    TRANSCRIPTION = "transcription"


class Source(StrEnum):
    """Where a model was found; in the order in which they are preferred when a name fits several."""

    FOLDER = "folder"
    LMSTUDIO = "lmstudio"
    OLLAMA = "ollama"
    HUGGINGFACE = "huggingface"
    LLAMA_CPP = "llama_cpp"
    DEMO = "demo"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model; with `error`, one that is listed but cannot be used, and why."""

    id: str
    path: Path  # the first file, which is the one to give to llama.cpp; of a speech model, the weights in its folder
    files: tuple[Path, ...] = ()  # all shards
    size: int = 0  # bytes of all shards
    mmproj: Path | None = None
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    embedding_length: int | None = None
    chat_template: str | None = field(default=None, repr=False)
    capabilities: frozenset[Capability] = frozenset()
    publisher: str | None = None
    created: int = 0  # Unix time at which the first file changed last
    source: Source = Source.FOLDER
    error: str | None = None
    names: frozenset[str] = field(default=frozenset(), repr=False)  # what else it answers to, casefolded
    header: Header | None = field(default=None, repr=False, compare=False)
    mmproj_size: int = 0  # bytes
    format: Format = "GGUF"

    def memory_needed(self, ctx_size: int) -> int:
        """Estimate the bytes that an instance of llama.cpp takes, for `ctx_size` tokens in all slots together."""
        weights = self.size + self.mmproj_size
        cache = kv_cache_bytes(self.header, ctx_size) if self.header else 0
        return weights + cache + int(weights * _COMPUTE_SHARE) + _PROCESS_BYTES
