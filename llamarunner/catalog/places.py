"""Where the models of this machine may lie."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llamarunner.catalog.entry import Source
from llamarunner.config import CatalogSettings, bundled


@dataclass(frozen=True, slots=True)
class Places:
    """The parts of a machine that decide where programs keep their models."""

    home: Path
    environ: Mapping[str, str]
    demo: Path | None = None  # the folder that comes with LlamaRunner
    library: Path | None = None  # where LlamaRunner stores models, unless the settings say so
    platform: str = sys.platform
    root: Path = Path("/")

    @classmethod
    def here(cls) -> Self:
        import platformdirs

        own = platformdirs.user_data_path("llamarunner", appauthor=False) / "library"
        return cls(Path.home(), os.environ, bundled("models"), own)

    def stores(self, settings: CatalogSettings) -> Iterator[tuple[Source, Path]]:
        """Yield every folder to read, whether it exists or not; the first that knows a file decides its source."""
        if self.demo:
            yield Source.DEMO, self.demo
        if library := settings.library or self.library:
            yield Source.LIBRARY, library
        for folder in settings.folders:
            yield Source.FOLDER, folder
        wanted = settings.discover
        for source, switch, folders in (
            (Source.LMSTUDIO, wanted.lmstudio, self.lmstudio()),
            (Source.OLLAMA, wanted.ollama, self.ollama()),
            (Source.HUGGINGFACE, wanted.huggingface, self.huggingface()),
            (Source.LLAMA_CPP, wanted.llama_cpp, self.llama_cpp()),
        ):
            if switch:
                yield from ((source, folder) for folder in folders)

    def ollama(self) -> tuple[Path, ...]:
        """Return Ollama's stores: the person's own, and that of the service which Linux packages install."""
        own = self._named("OLLAMA_MODELS") or self.home / ".ollama" / "models"
        return own, self.root / "usr/share/ollama/.ollama/models"

    def lmstudio(self) -> tuple[Path, ...]:
        """Return LM Studio's folders: today's, which a file in the home folder may name, and that of older versions."""
        try:
            named = (self.home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            named = ""
        return (Path(named) if named else self.home / ".lmstudio") / "models", self.home / ".cache/lm-studio/models"

    def huggingface(self) -> tuple[Path, ...]:
        base = self._named("HF_HOME") or self._caches() / "huggingface"
        return (self._named("HF_HUB_CACHE") or base / "hub",)

    def llama_cpp(self) -> tuple[Path, ...]:
        if named := self._named("LLAMA_CACHE"):
            return (named,)
        if self.platform == "darwin":
            return (self.home / "Library" / "Caches" / "llama.cpp",)
        if self.platform == "win32":
            return ((self._named("LOCALAPPDATA") or self.home / "AppData" / "Local") / "llama.cpp",)
        return (self._caches() / "llama.cpp",)

    def _caches(self) -> Path:
        return self._named("XDG_CACHE_HOME") or self.home / ".cache"

    def _named(self, variable: str) -> Path | None:
        value = self.environ.get(variable)
        return Path(value.replace("~", str(self.home), 1) if value.startswith("~/") else value) if value else None
