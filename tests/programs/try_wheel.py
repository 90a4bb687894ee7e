"""Use an installed LlamaRunner as a stranger would, with the standard library only: serve and chat."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

SHIPPED = (
    "_data/models/demo-chat.gguf",
    "_data/models/demo-embed.gguf",
    "_data/models/demo-vision/demo-vision.gguf",
    "_data/models/demo-vision/demo-vision-mmproj.gguf",
    "_data/models/demo-whisper/model.bin",
    "_data/models/recipes/chat/train.py",
    "_data/models/README.md",
    "_data/config/llamarunner.schema.json",
)


def main() -> None:
    import llamarunner

    package = Path(llamarunner.__file__).parent
    assert "site-packages" in package.parts, f"not the installed package: {package}"
    for shipped in SHIPPED:
        assert (package / shipped).is_file(), f"the wheel lacks {shipped}"
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "settings.json"
        config.write_text(json.dumps({"proxies": {"ollama": {"port": 0}, "lmstudio": {"port": 0}}}))
        command = [str(Path(sys.executable).with_name("llamarunner")), "serve", "--config", str(config)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HOME": home})
        try:
            for url in doors(server):
                chat(url)
        finally:
            server.terminate()
            assert server.wait(timeout=30) == 0


def doors(server: subprocess.Popen[str]) -> list[str]:
    """Read the greeting up to its example; return the URLs in it."""
    urls = []
    assert server.stdout
    for line in server.stdout:
        print(line, end="")
        if "Try" in line:
            return urls
        urls += re.findall(r"(http://[\d.]+:\d+)$", line.strip())
    raise AssertionError("the server ended before it was ready")


def chat(url: str) -> None:
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)["choices"][0]["message"]["content"]
    assert "Paris" in answer, answer
    print(f"{url}: {answer}")


if __name__ == "__main__":
    main()
