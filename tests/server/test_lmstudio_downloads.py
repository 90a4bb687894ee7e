"""LM Studio's downloads through a real door, a registry and a hub."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house

from llamarunner.config import NO_LIMITS, ApiKey, Door
from tests.library.places import Hub, Registry, model_bytes, served
from tests.server.test_lmstudio_models import ask

Json = dict[str, Any]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
JOB = re.compile(r"job_[0-9a-f]{10}")
BIG = 20_000  # weights of 2.5 MB
LINK = "https://huggingface.co/maker/Tiny-GGUF"


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    server = Registry()
    async with served(server):
        yield server


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    server = Hub()
    async with served(server):
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


async def download(house: House, **body: object) -> tuple[int, str]:
    return await ask(house, "POST", "/api/v1/models/download", body)


async def status(house: House, job_id: str) -> Json:
    code, answer = await ask(house, "GET", f"/api/v1/models/download/status/{job_id}")
    assert code == 200, answer
    return dict(json.loads(answer))


async def ended(house: House, job_id: str) -> str:
    """What is told of a job that is over."""
    async with asyncio.timeout(10):
        while (await status(house, job_id))["status"] == "downloading":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    _, answer = await ask(house, "GET", f"/api/v1/models/download/status/{job_id}")
    return masked(answer)


def masked(answer: str) -> str:
    return MOMENT.sub("<time>", JOB.sub("<job>", answer))


async def test_a_repository_is_downloaded_by_its_link_and_once(tmp_path: Path, hub: Hub) -> None:
    small, large = model_bytes(tmp_path), model_bytes(tmp_path, seed=1, size=128)
    hub.offer("maker/Tiny-GGUF", {"tiny-Q4_K_M.gguf": small, "tiny-Q8_0.gguf": large})
    async with open_house(tmp_path, models={}) as house:
        code, begun = await download(house, model=LINK, quantization="Q8_0")
        told = await ended(house, json.loads(begun)["job_id"])
        again = await download(house, model=LINK, quantization="Q8_0")
        _, models = await ask(house, "GET", "/api/v1/models")
    size = len(large)
    assert (code, masked(begun)) == (
        200,
        f'{{"job_id":"<job>","status":"downloading","total_size_bytes":{size},"started_at":"<time>"}}',
    )
    assert told == (
        f'{{"job_id":"<job>","status":"completed","completed_at":"<time>","total_size_bytes":{size},'
        f'"downloaded_bytes":{size},"started_at":"<time>"}}'
    )
    assert again == (200, '{"status":"already_downloaded"}')
    assert [one["key"] for one in json.loads(models)["models"]] == ["hf.co/maker/tiny-gguf:q8_0"]


async def test_a_download_under_way_tells_how_far_it_is_and_is_joined(tmp_path: Path, registry: Registry) -> None:
    weights = model_bytes(tmp_path, size=BIG)
    registry.offer("library/mario", ("model", weights))
    registry.moods = ["pause"]
    async with open_house(tmp_path, registry=registry.url) as house:
        _, begun = await download(house, model="mario")
        job_id = json.loads(begun)["job_id"]
        await asyncio.wait_for(registry.waiting.wait(), 10)
        async with asyncio.timeout(10):
            while "estimated_completion" not in (told := await status(house, job_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        _, joined = await download(house, model="Mario")
        registry.go_on.set()
        done = await ended(house, job_id)
    assert list(told) == [
        *("job_id", "status", "bytes_per_second", "estimated_completion"),
        *("total_size_bytes", "downloaded_bytes", "started_at"),
    ]
    assert told["status"] == "downloading"
    assert told["bytes_per_second"] > 0
    assert 0 < told["downloaded_bytes"] < told["total_size_bytes"]
    assert MOMENT.fullmatch(told["estimated_completion"])
    assert json.loads(joined)["job_id"] == job_id
    assert json.loads(done)["status"] == "completed"


async def test_a_name_is_looked_for_in_the_registry_and_then_on_the_hub(
    tmp_path: Path, registry: Registry, hub: Hub
) -> None:
    hub.offer("maker/Tiny-GGUF", {"tiny-Q4_K_M.gguf": model_bytes(tmp_path)})
    async with open_house(tmp_path, registry=registry.url) as house:
        _, begun = await download(house, model="maker/Tiny-GGUF")
        assert json.loads(await ended(house, json.loads(begun)["job_id"]))["status"] == "completed"
        assert (await download(house, model="chat"))[1] == '{"status":"already_downloaded"}'
    assert registry.requests("/v2/maker/Tiny-GGUF/manifests")


async def test_a_download_that_fails_says_why(tmp_path: Path, registry: Registry) -> None:
    registry.offer("library/mario", ("model", model_bytes(tmp_path)))
    registry.moods = ["status 403"]
    async with open_house(tmp_path, registry=registry.url) as house:
        _, begun = await download(house, model="mario")
        told = json.loads(await ended(house, json.loads(begun)["job_id"]))
    assert told["status"] == "failed"
    assert told["error"]
    assert "completed_at" not in told


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"model": "luigi"}, (404, "model_not_found", "model")),
        ({"model": "maker/luigi"}, (404, "model_not_found", "model")),
        ({"model": LINK, "quantization": "Q9"}, (404, "model_not_found", "model")),
        ({"model": "https://example.com/maker/tiny"}, (400, "invalid_request", "model")),
        ({"model": "../x"}, (400, "invalid_request", "model")),
        ({"model": "mario", "quantization": "Q4_K_M"}, (400, "invalid_request", "quantization")),
        ({"model": LINK, "quantization": "../.."}, (400, "invalid_request", "model")),
        ({"model": "mario", "revision": "main"}, (400, "invalid_request", None)),
    ],
    ids=["unknown", "unknown-anywhere", "no-such-quantization", "elsewhere", "no-name", "quantization", "odd", "key"],
)
async def test_mistakes(
    tmp_path: Path, registry: Registry, hub: Hub, body: Json, refusal: tuple[int, str, str | None]
) -> None:
    hub.offer("maker/Tiny-GGUF", {"tiny-Q4_K_M.gguf": model_bytes(tmp_path)})
    async with open_house(tmp_path, registry=registry.url) as house:
        status_code, answer = await download(house, **body)
        error = json.loads(answer)["error"]
        assert (status_code, error["type"], error.get("param")) == refusal


async def test_without_a_network_a_download_is_502(tmp_path: Path) -> None:
    async with open_house(tmp_path, registry="http://127.0.0.1:9") as house:
        code, answer = await download(house, model="mario")
    error = json.loads(answer)["error"]
    assert (code, error["type"]) == (502, "internal_error")
    assert error["message"].startswith("pull model manifest: ")


async def test_an_unknown_job(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        code, answer = await ask(house, "GET", "/api/v1/models/download/status/job_0123456789")
    assert code == 404
    assert answer == (
        '{"error":{"message":"Download job \\"job_0123456789\\" not found.","type":"job_not_found",'
        '"code":"job_not_found"}}'
    )


async def test_who_may_not_manage_or_not_see_a_model_cannot_download_it(tmp_path: Path) -> None:
    shut = Door(rate_limits=NO_LIMITS, allow_management="never")
    async with open_house(tmp_path, door=shut) as house:
        code, answer = await download(house, model="mario")
        assert (code, json.loads(answer)["error"]["type"]) == (403, "invalid_request")
    narrow = Door(rate_limits=NO_LIMITS, api_keys=(ApiKey.model_validate({"key": "k", "models": ["chat"]}),))
    async with open_house(tmp_path, door=narrow) as house:
        bearer = {"Authorization": "Bearer k"}
        async with house.post("/api/v1/models/download", {"model": "mario"}, headers=bearer) as response:
            assert response.status == 403
