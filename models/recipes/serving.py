"""A demo model as people meet it: behind a door of the real server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llamarunner import app
from llamarunner.config import NO_LIMITS, Settings


@asynccontextmanager
async def serving(*files: Path, **defaults: Any) -> AsyncIterator[str]:
    """Serve these files and nothing else; gives the base URL. `defaults` are those of the settings."""
    nowhere = dict.fromkeys(("ollama", "lmstudio", "huggingface", "llama_cpp"), False)
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            shutil.copy(file, folder)
        settings = {
            "proxies": {"ollama": {"enabled": False}, "lmstudio": {"port": 0, "rate_limits": NO_LIMITS}},
            "catalog": {"folders": [folder], "discover": nowhere, "demo_models": "hide"},
            "defaults": defaults,
        }
        async with app.running(Settings.model_validate(settings)) as house:
            yield house.urls["lmstudio"]
