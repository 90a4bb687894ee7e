"""Pulls a model into a library, until it is killed: `python tests/programs/pull.py FOLDER REGISTRY NAME`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.library.places import library


async def main(folder: Path, registry: str, name: str) -> None:
    async with library(folder, registry) as house:
        await house.pull(name)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
