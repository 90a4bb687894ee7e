"""`ModelEntry`: one model that exists on this machine, as every other room sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple

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

    LIBRARY = "library"  # LlamaRunner's own, the only one that it writes
    FOLDER = "folder"
    LMSTUDIO = "lmstudio"
    OLLAMA = "ollama"
    HUGGINGFACE = "huggingface"
    LLAMA_CPP = "llama_cpp"
    DEMO = "demo"


class Stamp(NamedTuple):
    """What changes when a file is replaced."""

    size: int  # bytes
    changed_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Preset:
    """What a model of Ollama's kind brings along besides its weights."""

    system: str = ""
    template: str = ""  # as written: Ollama's are Go templates
    parameters: Mapping[str, object] = field(default_factory=dict)  # Ollama's options: numbers, texts, lists of texts
    messages: tuple[Mapping[str, object], ...] = ()  # role, content, …
    license: tuple[str, ...] = ()


NO_PRESET = Preset()


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
    created: int = 0  # Unix time at which its manifest, or else its first file, changed last
    source: Source = Source.FOLDER
    error: str | None = None
    names: frozenset[str] = field(default=frozenset(), repr=False)  # what else it answers to, casefolded
    header: Header | None = field(default=None, repr=False, compare=False)
    mmproj_size: int = 0  # bytes
    format: Format = "GGUF"
    stamps: tuple[Stamp, ...] = ()  # of `files`
    title: str | None = None  # name:tag as Ollama would print it, where a manifest names the model
    manifest: Path | None = None  # that names it
    digest: str | None = None  # sha256 of the manifest, 64 hexadecimal digits
    preset: Preset = field(default=NO_PRESET, repr=False, hash=False)
    adapters: tuple[Path, ...] = ()  # LoRA adapters that belong to it
    instance: int = 1  # which of its instances is meant, where several run

    @property
    def instance_id(self) -> str:
        """What the meant instance is called: the first as the model, others `id:2`, `id:3`."""
        return self.id if self.instance == 1 else f"{self.id}:{self.instance}"

    def memory_needed(self, ctx_size: int) -> int:
        """Estimate the bytes that an instance of llama.cpp takes, for `ctx_size` tokens in all slots together."""
        weights = self.size + self.mmproj_size
        cache = kv_cache_bytes(self.header, ctx_size) if self.header else 0
        return weights + cache + int(weights * _COMPUTE_SHARE) + _PROCESS_BYTES
