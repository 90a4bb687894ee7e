"""The house about itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from doors import open_house


async def test_health(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        for url in house.urls.values():
            async with house.client.get(url + "/health") as response:
                assert response.status == 200
                health = await response.json()
            assert health.keys() == {"status", "timestamp", "version", "uptime"}
            assert (health["status"], health["version"]) == ("healthy", "1.2.3")
            assert type(health["uptime"]) is int
            assert health["timestamp"].endswith("Z")
            age = datetime.now(UTC) - datetime.fromisoformat(health["timestamp"])
            assert timedelta(0) <= age < timedelta(seconds=3)
            async with house.client.head(url + "/health") as response:
                assert response.status == 200
                assert await response.read() == b""


async def test_health_while_draining_is_503(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        house.services.drain.begin()
        async with house.client.get(house.url + "/health") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "draining"
        async with house.client.head(house.url + "/health") as response:
            assert response.status == 503


async def test_only_the_ollama_door_says_what_ollama_says(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={}) as house:
        async with house.client.get(house.urls["ollama"] + "/") as response:
            assert response.status == 200
            assert response.content_type == "text/plain"
            assert await response.text() == "Ollama is running"
        async with house.client.head(house.urls["ollama"] + "/") as response:
            assert response.status == 200
        async with house.client.get(house.urls["lmstudio"] + "/") as response:
            assert response.status == 404
