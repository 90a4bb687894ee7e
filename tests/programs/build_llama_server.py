"""Build the native llama-server from what PyPI offers: `python build_llama_server.py FOLDER` prints the binary's path.

No wheel holds llama.cpp's own program, but the source package of llama-cpp-python carries the whole of llama.cpp. The
build is kept in FOLDER, so a second call answers at once. It needs a C++ compiler and takes some minutes: the contract
suite runs against the result when `LLAMA_SERVER` names it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

SOURCE = "llama-cpp-python==0.3.36"
CMAKE_OPTIONS = (
    "-GNinja",
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",  # one file that can be kept and moved
    "-DGGML_NATIVE=OFF",  # a kept build may be used on another processor
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # no download in the middle of a build
)


def main(folder: Path) -> Path:
    binary = folder / SOURCE.replace("==", "-") / "bin" / "llama-server"
    if not binary.is_file():
        build(source(folder), tools(folder), binary.parent.parent)
    return binary


def tools(folder: Path) -> Path:
    """Return the folder of the commands cmake and ninja, installed apart from everything else."""
    venv.create(folder / "tools", with_pip=True)
    scripts = folder / "tools" / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", "cmake", "ninja")
    return scripts


def source(folder: Path) -> Path:
    """Return the folder of llama.cpp's source, downloaded and unpacked."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python")
    run(*pip, "--dest", folder, SOURCE)
    (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data", members=[m for m in tar if "/vendor/llama.cpp/" in m.name])
    return folder / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"


def build(code: Path, scripts: Path, target: Path) -> None:
    env = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    run(scripts / "cmake", "-S", code, "-B", target, *CMAKE_OPTIONS, env=env)
    run(scripts / "cmake", "--build", target, "--target", "llama-server", env=env)


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command whose output goes to stderr: stdout is for the path alone."""
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, env=env)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    destination = Path(sys.argv[1]).resolve()
    destination.mkdir(parents=True, exist_ok=True)
    print(main(destination))
