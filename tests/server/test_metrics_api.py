"""`GET /metrics` on both doors, over real doors and children."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doors import House, open_house
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from llamarunner.config import NO_LIMITS, Door
from llamarunner.server import children

DOORS = pytest.mark.parametrize("name", ["ollama", "lmstudio"])
TOLD = ("--metrics",)
TIMINGS = {"prompt_n": 3, "cache_n": 17, "predicted_n": 5, "predicted_per_second": 250.0}


async def scrape(house: House, name: str = "lmstudio", **headers: str) -> dict[str, dict[tuple[str, ...], float]]:
    """All samples: name → label values in the order of the labels' names → value."""
    async with house.client.get(house.urls[name] + "/metrics", headers=headers) as response:
        assert response.status == 200
        text = await response.text()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    families = list(parse(text))
    assert len({family.name for family in families}) == len(families), "each family stands once"
    for family in families:
        for sample in family.samples:
            key = tuple(value for _, value in sorted(sample.labels.items()))
            assert key not in found.setdefault(sample.name, {}), "no sample stands twice"
            found[sample.name][key] = sample.value
    return found


async def use(house: House, **document: Any) -> None:
    async with house.chat(**document) as response:
        assert response.status == 200
        await response.read()


@pytest.fixture
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FRESH_SECONDS", 0.0)


@DOORS
async def test_requests_and_tokens_are_counted(tmp_path: Path, name: str) -> None:
    async with open_house(tmp_path) as house:
        await use(house, fake={"timings": TIMINGS})
        await use(house, fake={"timings": TIMINGS}, stream=True)
        async with house.post("/v1/embeddings", {"model": "nobody", "input": "hello"}) as response:
            assert response.status == 404
        await house.until(lambda: len(house.services.records.active) == 0)
        seen = await scrape(house, name)
    requests = seen["llamarunner_requests_total"]  # dialect, door, model, status
    assert requests["openai", "lmstudio", "chat", "200"] == 2
    assert requests["openai", "lmstudio", "", "404"] == 1
    assert seen["llamarunner_prompt_tokens_total"] == {("chat",): 40}
    assert seen["llamarunner_completion_tokens_total"] == {("chat",): 10}
    assert seen["llamarunner_first_token_seconds_count"] == {("chat",): 1}
    assert seen["llamarunner_token_seconds_sum"] == {("chat",): pytest.approx(1 / 250)}
    assert seen["llamarunner_queue_seconds_count"] == {("chat",): 2}
    assert seen["llamarunner_request_seconds_count"] == {("chat",): 2}
    assert seen["llamarunner_model_load_seconds_count"] == {("chat",): 1}
    assert seen["llamarunner_model_loaded"] == {("chat", "generate"): 1}
    assert seen["llamarunner_build_info"][next(iter(seen["llamarunner_build_info"]))] == 1
    assert seen["process_resident_memory_bytes"][()] > 1e6
    assert "process_open_fds" in seen
    assert not any(sample.endswith("_created") for sample in seen)


async def test_models_that_leave_and_crash_are_counted(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "other": {}}
    async with open_house(tmp_path, models=models, supervisor={"max_loaded_models": 1}) as house:
        await use(house)
        await use(house, model="other")
        async with house.chat(model="other", fake={"then": "die"}) as response:
            assert response.status == 502
        await house.until(lambda: not house.services.supervisor.loaded())
        await use(house, model="other")
        async with house.post("/v1/models/other/stop", {}) as response:
            assert response.status == 200
        seen = await scrape(house)
    assert seen["llamarunner_model_unloads_total"] == {("chat", "evicted"): 1, ("other", "asked"): 1}
    assert seen["llamarunner_model_failures_total"] == {("other",): 1}
    assert seen["llamarunner_model_load_seconds_count"] == {("chat",): 1, ("other",): 2}
    assert "llamarunner_model_loaded" not in seen


async def test_what_is_under_way_is_shown(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.chat(stream=True, fake={"tokens": 1000, "delay": 0.02}):
            await house.wait_for("token")
            seen = await scrape(house, "ollama")
            assert seen["llamarunner_active_streams"] == {("lmstudio",): 1, ("ollama",): 0}
            assert seen["llamarunner_active_requests"] == {("lmstudio",): 1, ("ollama",): 1}
        await house.until(lambda: not house.services.records.active)


@pytest.mark.parametrize("limit", ["requests_per_minute", "concurrent_requests", "streaming_connections"])
async def test_refusals_are_counted_by_limit(tmp_path: Path, limit: str) -> None:
    door = Door(rate_limits=NO_LIMITS.model_copy(update={limit: 1}))
    async with open_house(tmp_path, door=door) as house, house.chat(stream=True, fake={"tokens": 1000, "delay": 0.02}):
        await house.wait_for("token")
        for _ in range(3):
            async with house.chat(stream=True) as response:
                assert response.status == 429
        for _ in range(5):  # free of limits itself
            seen = await scrape(house)
    assert seen["llamarunner_limited_total"] == {("lmstudio", limit): 3}


async def test_guesses_of_keys_are_a_limit_of_their_own(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=Door.model_validate({"api_keys": ["right"]})) as house:
        for number in range(12):
            async with house.client.get(
                house.url + "/metrics", headers={"Authorization": f"Bearer {number}"}
            ) as answer:
                assert answer.status == (401 if number < 10 else 429)
        seen = house.services.metrics.registry.get_sample_value
        assert seen("llamarunner_limited_total", {"door": "lmstudio", "limit": "wrong_keys"}) == 2


async def test_a_door_with_keys_asks_for_one(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}, door=Door.model_validate({"api_keys": ["right"]})) as house:
        async with house.client.get(house.url + "/metrics") as response:
            assert response.status == 401
        await scrape(house, Authorization="Bearer right")


async def test_a_key_sees_only_its_models(tmp_path: Path, always_fresh: None) -> None:
    keys = [{"key": "all"}, {"key": "some", "models": ["chat"]}]
    door = Door.model_validate({"api_keys": keys, "rate_limits": NO_LIMITS.model_dump()})
    async with open_house(tmp_path, models={"chat": {}, "hidden": {}}, door=door, flags=TOLD) as house:
        for model in ("chat", "hidden"):
            message = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
            async with house.post("/v1/chat/completions", message, headers={"Authorization": "Bearer all"}) as response:
                assert response.status == 200
        assert "hidden" in str(await scrape(house, Authorization="Bearer all"))
        seen = await scrape(house, Authorization="Bearer some")
    assert "hidden" not in str(seen)
    assert seen["llamacpp_tokens_predicted_total"] == {("chat", "generate"): 4}


async def test_names_that_clients_invent_are_no_labels(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for number in range(30):
            async with house.chat(model=f"invented-{number}") as response:
                assert response.status == 404
            async with house.client.get(f"{house.url}/v1/models/invented-{number}/status") as response:
                assert response.status == 404
        seen = await scrape(house)
    assert "invented" not in str(seen)
    assert seen["llamarunner_requests_total"]["openai", "lmstudio", "", "404"] == 30


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        (
            "application/openmetrics-text; version=1.0.0, text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("application/openmetrics-text; version=x", "application/openmetrics-text; version=1.0.0"),
        ("text/plain; version=;;,,\t=", "text/plain; version=0.0.4"),
        ("application/json", "text/plain; version=0.0.4"),
    ],
)
async def test_the_form_is_as_accepted(tmp_path: Path, accept: str, kind: str) -> None:
    async with open_house(tmp_path, flags=TOLD) as house:
        await use(house, stream=True, fake={"timings": TIMINGS})
        async with house.client.get(house.url + "/metrics", headers={"Accept": accept}) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith(kind)
            text = await response.text()
    parser = parse_openmetrics if "openmetrics" in kind else parse
    names = {sample.name for family in parser(text) for sample in family.samples}
    assert {"llamarunner_requests_total", "llamacpp_tokens_predicted_total", "llamacpp_n_tokens_max"} <= names
