"""The examples of LM Studio's documents, run as they stand through its door; only the address differs.

They name models that nobody has here: with one chat model loaded, that one answers, as the documents say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.house.conftest import House, OpenHouse
from tests.house.test_spec_examples import chunks, post, run
from tests.house.test_spec_examples_media import NODE
from tests.specification import differences, document, text

ADDRESS = re.compile(r"http://(?:localhost|100\.\d+\.\d+\.\d+):1234")
FOLDER = "lmstudio/"
EMBEDS = {"text-embedding-model": "demo-embed", "text-embedding-nomic-embed-text-v1.5": "demo-embed"}
JQ = """#!{python}
import json, sys
assert sys.argv[1:] == [".data[].id"]
print(*(json.dumps(one["id"]) for one in json.load(sys.stdin)["data"]), sep="\\n")
"""
LIST = "\nconsole.log(JSON.stringify(await getLoadedModel()));\n"
CHAT = """
console.log(JSON.stringify(await getChatCompletion([
  { role: "system", content: "You are a helpful assistant." },
  { role: "user", content: "What is the capital of France?" }
])));
"""


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house({"catalog": {"aliases": EMBEDS}}) as house:
        start = f"{house.url}/v1/models/demo-chat/start?wait=true"
        async with aiohttp.ClientSession() as http, http.post(start) as response:
            assert response.status == 200
        yield house


def placed(name: str, house: House, folder: Path, more: str = "", suffix: str | None = None) -> str:
    """Write an example into a folder, with our door's address, and `more` at its end; return its path."""
    example, count = ADDRESS.subn(house.url, text(FOLDER + name))
    assert count > 0
    file = (folder / name).with_suffix(suffix or Path(name).suffix)
    file.write_text(example + more)
    return str(file)


async def test_typescript(house: House, tmp_path: Path) -> None:
    """What calls the functions of the document is ours."""
    said = await run(*NODE, placed("models.ts", house, tmp_path, LIST, ".mts"), folder=tmp_path)
    first, listed = said.strip().splitlines()
    assert first == "Loaded model: demo-chat"
    assert differences(document(f"{FOLDER}answers/models.json"), json.loads(listed)) == []
    said = await run(*NODE, placed("chat.ts", house, tmp_path, CHAT, ".mts"), folder=tmp_path)
    heard, answer = said.strip().splitlines()
    assert heard.startswith("Assistant: ")
    assert differences(document(f"{FOLDER}answers/chat.json"), json.loads(answer)) == []
    assert json.loads(answer)["model"] == "demo-chat"


async def test_python_and_curl(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of jq nothing is needed but this, so that the test needs no jq."""
    (tmp_path / "jq").write_text(JQ.format(python=sys.executable))
    (tmp_path / "jq").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert (await run(sys.executable, placed("client.py", house, tmp_path), folder=tmp_path)).strip()
    told = {
        name: await run("sh", placed(f"{name}.sh", house, tmp_path), folder=tmp_path)
        for name in ("chat", "key", "embeddings", "models")
    }
    assert differences(document(f"{FOLDER}answers/chat_short.json"), json.loads(told["chat"])) == []
    assert differences(document(f"{FOLDER}answers/models_short.json"), json.loads(told["key"])) == []
    assert json.loads(told["embeddings"])["data"][0]["embedding"]
    assert '"demo-chat"' in told["models"].splitlines()


async def test_requests_are_answered_as_documented(house: House) -> None:
    path = house.url + "/v1/chat/completions"
    for name in ("chat", "chat_short"):
        answer = json.loads(await post(path, document(f"{FOLDER}requests/{name}.json")))
        assert differences(document(f"{FOLDER}answers/{name}.json"), answer) == []
    said = await post(path, {**document(f"{FOLDER}requests/chat.json"), "stream": True})
    assert said.rstrip().endswith("data: [DONE]")
    real = chunks(said)
    for name in ("stream", "stream_short"):
        for documented in chunks(text(f"{FOLDER}answers/{name}.txt")):
            assert any(differences(documented, chunk) == [] for chunk in real), documented
    answer = json.loads(await post(house.url + "/v1/completions", document(f"{FOLDER}requests/completion.json")))
    assert (answer["object"], answer["model"]) == ("text_completion", "demo-chat")
    answer = json.loads(await post(house.url + "/v1/embeddings", document(f"{FOLDER}requests/embeddings.json")))
    assert answer["data"][0]["embedding"]
    async with aiohttp.ClientSession() as http, http.post(path, json={}) as response:
        refused = (await response.json())["error"]
        assert response.status == 400
    assert refused.keys() >= document(f"{FOLDER}answers/error.json")["error"].keys()
    assert refused["type"] == "invalid_request_error"


async def test_v0_with_the_real_runtime(house: House) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    path, end = house.url + "/api/v0/chat/completions", {"stop": ["Paris"], "max_tokens": -1}
    asked = {"model": "Demo-Chat", "messages": messages, "temperature": 0, "reasoning_effort": "none", **end}
    whole = json.loads(await post(path, asked))
    assert whole["choices"][0]["message"]["content"] == "The capital of France is "
    streamed = chunks(await post(path, {**asked, "stream": True}))
    assert ["stats" in chunk for chunk in streamed] == [False] * (len(streamed) - 1) + [True]
    for answer in (whole, streamed[-1]):
        assert answer["stats"]["stop_reason"] == "stopStringFound"
        assert answer["stats"]["tokens_per_second"] > 0
        assert answer["stats"]["generation_time"] > 0
        assert answer["model_info"]["format"] == "gguf"
        assert answer["model_info"]["context_length"] > 0
        assert answer["runtime"]["version"]
        assert "__verbose" not in answer
    asked = {"prompt": "The capital", "max_tokens": 5, "logit_bias": {}}
    told = json.loads(await post(house.url + "/api/v0/completions", asked))
    assert told["stats"]["stop_reason"] in {"eosFound", "maxPredictedTokensReached"}
    assert told["id"].startswith("cmpl-")
