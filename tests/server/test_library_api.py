"""Pulls, copies, creations and uploads through the Ollama door, over a real registry and a real library."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import ollama
import pytest
from doors import House, open_house
from yarl import URL

from llamarunner.config import NO_LIMITS, ApiKey, Door
from llamarunner.dialects.ollama.names import parse as names_parse
from tests.conftest import eventually
from tests.library.places import Registry, digest_of, model_bytes, served
from tests.server.test_ollama_api import EVIL

Json = dict[str, Any]
Answer = tuple[int, str, bytes]  # status, type, body
BIG = 20_000  # weights of 2.5 MB


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    server = Registry()
    async with served(server):
        yield server


async def ask(house: House, method: str, path: str, document: Json | None = None, **more: Any) -> Answer:
    """Ask the Ollama door."""
    data = None if document is None else json.dumps(document)
    async with house.client.request(method, house.urls["ollama"] + path, data=data, **more) as response:
        return response.status, response.headers.get("Content-Type", ""), await response.read()


def lines(body: bytes) -> list[Json]:
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


async def names(house: House) -> list[str]:
    _, _, body = await ask(house, "GET", "/api/tags")
    return sorted(one["name"] for one in json.loads(body)["models"])


async def test_a_pull_tells_its_lines_and_the_model_answers(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path)
    registry.offer("library/mario", ("model", weights), ("system", b"You are Mario."), ("params", b'{"top_k":7}'))
    async with open_house(tmp_path, registry=registry.url) as house:
        status, media, body = await ask(house, "POST", "/api/pull", {"name": "mario"})
        told = lines(body)
        asked = {"model": "mario", "messages": [{"role": "user", "content": "hello"}], "stream": False}
        answered, _, _ = await ask(house, "POST", "/api/chat", asked)
        _, _, shown = await ask(house, "POST", "/api/show", {"model": "mario"})
        heard = house.journal("body")[-1]["body"]
        _, _, tags = await ask(house, "GET", "/api/tags")
        listed = json.loads(tags)["models"]
    assert (status, media) == (200, "application/x-ndjson")
    assert told[0] == {"status": "pulling manifest"}
    assert {"total": len(weights), "completed": len(weights)}.items() <= told[1].items() | told[2].items()
    assert told[-1] == {"status": "success"}
    assert answered == 200
    assert heard["messages"][0] == {"role": "system", "content": "You are Mario."}
    assert heard["top_k"] == 7
    assert {"system": "You are Mario.", "parameters": f"{'top_k':<30} 7"}.items() <= json.loads(shown).items()
    mario = next(one for one in listed if one["name"] == "mario:latest")
    manifest = registry.files["/v2/library/mario/manifests/latest"]
    assert mario["digest"] == hashlib.sha256(manifest).hexdigest()


async def test_a_pull_that_is_not_streamed_says_its_last_words_only(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/mario", ("model", model_bytes(tmp_path)))
    async with open_house(tmp_path, registry=registry.url) as house:
        well = await ask(house, "POST", "/api/pull", {"model": "mario", "stream": False})
        absent = await ask(house, "POST", "/api/pull", {"model": "luigi", "stream": False})
        streamed = await ask(house, "POST", "/api/pull", {"model": "luigi"})
        wrong = await ask(house, "POST", "/api/pull", {"model": "../x"})
        empty = await ask(house, "POST", "/api/pull", {})
    assert well == (200, "application/json", b'{"status":"success"}')
    assert absent[0] == 500
    assert json.loads(absent[2]) == {"error": "pull model manifest: file does not exist"}
    assert streamed[0] == 200
    assert lines(streamed[2]) == [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: file does not exist"},
    ]
    assert (wrong[0], json.loads(wrong[2])) == (400, {"error": "invalid model name"})
    assert (empty[0], json.loads(empty[2])) == (400, {"error": "invalid model name"})


async def test_a_client_that_leaves_ends_its_pull_and_the_next_goes_on(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/mario", ("model", weights))
    registry.moods = ["stall"]
    async with open_house(tmp_path, registry=registry.url) as house:
        async with house.client.post(house.urls["ollama"] + "/api/pull", json={"model": "mario"}) as response:
            while b"completed" not in await response.content.readline():
                pass
        await eventually(lambda: registry.left == 1)
        _, _, body = await ask(house, "POST", "/api/pull", {"model": "mario"})
    assert lines(body)[-1] == {"status": "success"}
    assert registry.requests(digest_of(weights))[-1].headers["Range"].startswith("bytes=")


async def test_a_pull_ends_with_a_word_when_the_server_stops(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/mario", ("model", model_bytes(tmp_path, size=BIG)))
    registry.moods = ["stall"]
    async with open_house(tmp_path, registry=registry.url) as house:
        async with house.client.post(house.urls["ollama"] + "/api/pull", json={"model": "mario"}) as response:
            await registry.waiting.wait()
            house.services.drain.begin()
            told = lines(await response.read())
        assert await house.services.drain.idle(5)
    assert told[-1] == {"error": "The server is shutting down."}


async def test_copies_and_deletions_answer_with_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        copied = await ask(house, "POST", "/api/copy", {"source": "chat", "destination": "mine:1"})
        there = await names(house)
        deleted = await ask(house, "DELETE", "/api/delete", {"name": "mine:1"})
        left = await names(house)
    assert [(one[0], one[2]) for one in (copied, deleted)] == [(200, b""), (200, b"")]
    assert (there, left) == (["chat:latest", "mine:1"], ["chat:latest"])


@pytest.mark.parametrize(
    ("method", "path", "document", "status", "error"),
    [
        ("POST", "/api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        ("POST", "/api/copy", {"source": "chat", "destination": "/"}, 400, 'destination "/" is invalid'),
        ("POST", "/api/copy", {"source": "", "destination": "x"}, 400, 'source "" is invalid'),
        ("DELETE", "/api/delete", {"model": "nope"}, 404, "model 'nope' not found"),
        ("DELETE", "/api/delete", {}, 400, "model is required"),
        ("DELETE", "/api/delete", {"model": "a/b/c/d"}, 400, 'name "a/b/c/d" is invalid'),
        ("POST", "/api/create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
        ("POST", "/api/create", {"from": "chat"}, 400, "invalid model name"),
        ("POST", "/api/create", {"model": "x", "from": "chat", "license": 3}, 400, None),
        ("POST", "/api/blobs/sha256:short", {}, 400, "invalid digest format"),
        ("POST", "/api/push", {"model": "chat"}, 400, "pushing models is not supported by this server"),
    ],
)
async def test_mistakes_are_told_as_ollama_does(
    tmp_path: Path, *, method: str, path: str, document: Json, status: int, error: str | None
) -> None:
    async with open_house(tmp_path) as house:
        got, _, body = await ask(house, method, path, document)
    assert got == status
    assert json.loads(body)["error"] == (error or "license must be a text, or a list of texts")


async def test_a_persons_own_file_is_not_deleted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        status, _, body = await ask(house, "DELETE", "/api/delete", {"model": "chat"})
        assert await names(house) == ["chat:latest"]
    assert status == 403
    assert "your own folders" in json.loads(body)["error"]


async def test_a_blob_is_taken_once_and_must_be_what_it_says(tmp_path: Path) -> None:
    data = model_bytes(tmp_path, size=BIG)
    path = f"/api/blobs/{digest_of(data)}"
    async with open_house(tmp_path) as house:

        async def upload(path: str) -> tuple[int, bytes]:
            async with house.client.post(house.urls["ollama"] + path, data=io.BytesIO(data)) as response:
                return response.status, await response.read()

        before = (await ask(house, "HEAD", path))[0]
        first, second = await upload(path), await upload(path)
        after = (await ask(house, "HEAD", path))[0]
        wrong = (await ask(house, "HEAD", "/api/blobs/md5:1"))[0]
        other = await upload(f"/api/blobs/sha256:{'0' * 64}")
    assert (before, first, second, after, wrong) == (404, (201, b""), (200, b""), 200, 400)
    expected = f'digest mismatch, expected "sha256:{"0" * 64}", got "{digest_of(data)}"'
    assert (other[0], json.loads(other[1])) == (400, {"error": expected})


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        url = URL(house.urls["ollama"])
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST /api/blobs/sha256:{'1' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n"
        writer.write(head.encode() + b"x" * 3_000_000)
        await writer.drain()
        blobs = tmp_path / "library" / "blobs"
        await eventually(lambda: bool(blobs.exists() and list(blobs.iterdir())))
        writer.close()
        await eventually(lambda: not list(blobs.iterdir()))


async def test_a_model_is_made_of_another_and_of_files(tmp_path: Path) -> None:
    data = model_bytes(tmp_path)
    async with open_house(tmp_path) as house:
        async with house.client.post(f"{house.urls['ollama']}/api/blobs/{digest_of(data)}", data=data) as response:
            assert response.status == 201
        recipe = {"model": "pirate", "from": "chat", "system": "Arr.", "parameters": {"temperature": 0.5}}
        of_model = await ask(house, "POST", "/api/create", recipe)
        files = {"model": "raw", "files": {"raw.gguf": digest_of(data)}, "license": ["MIT"], "stream": False}
        of_files = await ask(house, "POST", "/api/create", files)
        _, _, shown = await ask(house, "POST", "/api/show", {"model": "pirate"})
        _, _, raw = await ask(house, "POST", "/api/show", {"model": "raw"})
        assert await names(house) == ["chat:latest", "pirate:latest", "raw:latest"]
    assert lines(of_model[2])[-2:] == [{"status": "writing manifest"}, {"status": "success"}]
    assert of_files == (200, "application/json", b'{"status":"success"}')
    assert json.loads(shown)["system"] == "Arr."
    assert json.loads(raw)["license"] == "MIT"


async def test_only_who_may_manage_changes_models(tmp_path: Path) -> None:
    door = Door(rate_limits=NO_LIMITS, allow_management="never")
    blob = f"/api/blobs/sha256:{'0' * 64}"
    async with open_house(tmp_path, door=door) as house:
        asked = [
            await ask(house, "POST", "/api/pull", {"model": "x"}),
            await ask(house, "POST", "/api/create", {"model": "x", "from": "chat"}),
            await ask(house, "POST", "/api/copy", {"source": "chat", "destination": "x"}),
            await ask(house, "DELETE", "/api/delete", {"model": "chat"}),
            await ask(house, "POST", blob, {}),
        ]
        left = await names(house)
    assert [one[0] for one in asked] == [403] * 5
    assert left == ["chat:latest"]


async def test_a_key_touches_only_the_models_that_it_sees(tmp_path: Path) -> None:
    keys = (ApiKey(key="all"), ApiKey(key="some", models=("mine*",)))
    some, everything = ({"headers": {"Authorization": f"Bearer {key}"}} for key in ("some", "all"))
    async with open_house(tmp_path, door=Door(rate_limits=NO_LIMITS, api_keys=keys)) as house:
        made = await ask(house, "POST", "/api/copy", {"source": "chat", "destination": "other"}, **everything)
        refused = [
            await ask(house, "POST", "/api/copy", {"source": "chat", "destination": "mine"}, **some),
            await ask(house, "POST", "/api/create", {"model": "mine", "from": "chat"}, **some),
            await ask(house, "POST", "/api/create", {"model": "chat", "from": "mine"}, **some),
            await ask(house, "POST", "/api/pull", {"model": "other"}, **some),
            await ask(house, "DELETE", "/api/delete", {"model": "other"}, **some),
            await ask(house, "DELETE", "/api/delete", {"model": "https://registry.ollama.ai/library/other"}, **some),
        ]
        _, _, tags = await ask(house, "GET", "/api/tags", **everything)
    assert made[0] == 200
    assert [one[0] for one in refused] == [404, 404, 403, 403, 404, 404]
    assert sorted(one["name"] for one in json.loads(tags)["models"]) == ["chat:latest", "other:latest"]


async def test_the_official_client_pulls_creates_copies_and_deletes(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/mario", ("model", model_bytes(tmp_path)))
    file = tmp_path / "file.gguf"
    file.write_bytes(model_bytes(tmp_path, seed=1, size=BIG))
    async with open_house(tmp_path, registry=registry.url) as house:
        client = ollama.AsyncClient(house.urls["ollama"])
        try:
            progress = [one.status async for one in await client.pull("mario", stream=True)]
            assert (await client.pull("mario")).status == "success"
            digest = await client.create_blob(file)
            assert digest == await client.create_blob(file)  # which sends all again
            assert (await client.create("made", files={"made.gguf": digest}, system="Hi.")).status == "success"
            assert (await client.copy("made", "other")).status == "success"
            assert (await client.delete("made")).status == "success"
            with pytest.raises(ollama.ResponseError, match="model 'made' not found"):
                await client.delete("made")
            listed = [one.model for one in (await client.list()).models]
            shown = await client.show("other")
        finally:
            await client._client.aclose()
    assert (progress[0], progress[-1]) == ("pulling manifest", "success")
    assert sorted(name or "" for name in listed) == ["chat:latest", "mario:latest", "other:latest"]
    assert shown.modelfile is not None
    assert "SYSTEM" in shown.modelfile


def beside(folder: Path) -> set[Path]:
    """What lies beside the library."""
    return {path for path in folder.rglob("*") if "library" not in path.relative_to(folder).parts}


async def test_s01_no_name_leads_out_of_the_folder_by_any_route(tmp_path: Path) -> None:
    """Of the routes that write; those that only read are tried in test_ollama_api."""
    async with open_house(tmp_path) as house:
        there = beside(tmp_path)
        for name in EVIL:
            quoted = quote(name, safe="")
            for method, path, document in (
                ("POST", "/api/pull", {"model": name, "stream": False}),
                ("POST", "/api/create", {"model": name, "from": "chat", "stream": False}),
                ("POST", "/api/create", {"model": "a", "files": {name: name}, "stream": False}),
                ("POST", "/api/copy", {"source": "chat", "destination": name}),
                ("DELETE", "/api/delete", {"model": name}),
                ("POST", f"/api/blobs/{quoted}", {}),
            ):
                url = URL(house.urls["ollama"] + path, encoded=True)
                async with house.client.request(method, url, json=document) as response:
                    assert response.status in (200, 400, 403, 404, 500), (path, name)
                    if names_parse(name) is None:
                        assert response.status in (400, 404), (path, name)
        assert beside(tmp_path) - there <= {tmp_path / "digests.json"}
