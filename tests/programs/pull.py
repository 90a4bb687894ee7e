"""Pulls a model into a library, until it is killed, or may not write on.

`python tests/programs/pull.py FOLDER REGISTRY NAME [LARGEST_FILE]`; what goes wrong is printed.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from llamarunner.errors import LlamaRunnerError
from tests.library.places import library


async def main(folder: Path, registry: str, name: str) -> None:
    async with library(folder, registry) as house:
        try:
            await house.pull(name)
        except LlamaRunnerError as error:
            print(f"{type(error).__name__}: {error.message}")


if __name__ == "__main__":
    if largest := [int(text) for text in sys.argv[4:]]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest[0], resource.RLIM_INFINITY))
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
