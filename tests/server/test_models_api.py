"""Models by REST, through both doors, with real child programs."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType
from typing import Any

import aiohttp
import pytest
from doors import House, open_house
from write_gguf import write_model

from tests.conftest import alive

# The spec's fields with their types; null only where it is said.
STATUS = {"id": str, "status": str, "port": int, "uptime": int, "memory_usage": int, "last_used": str}
MORE_STATUS = {"queue_length": int, "slots": dict, "context_length": int, "draining": bool, "expires_at": str}
INFO = {
    "id": str,
    "path": str,
    "size": int,
    "parameters": int,
    "format": str,
    "architecture": str,
    "context_length": int,
    "loaded": bool,
    "port": int,
}
STOPS = {3: "stop", 11: "stop?force=1"}
NAMES = ("publisher/name", "name:latest", "publisher%2Fname", "NAME")


def assert_fields(document: Mapping[str, Any], fields: Mapping[str, type], nulls: tuple[str, ...] = ()) -> None:
    """Every field is there with just this type; those in `nulls` are null."""
    kinds = {name: type(document[name]) for name in fields}
    assert kinds == {name: NoneType if name in nulls else kind for name, kind in fields.items()}


async def ask(house: House, method: str, path: str, door: str = "lmstudio", **options: Any) -> tuple[int, Any]:
    async with house.client.request(method, f"{house.urls[door]}/v1/models/{path}", **options) as response:
        assert response.content_type == "application/json"
        assert response.headers["X-Request-ID"]
        return response.status, await response.json()


async def get(house: House, path: str, door: str = "lmstudio") -> Any:
    status, answer = await ask(house, "GET", path, door)
    assert status == 200, answer
    return answer


async def post(house: House, path: str, **options: Any) -> Any:
    status, answer = await ask(house, "POST", path, **options)
    assert status == 200, answer
    return answer


async def test_status_of_a_model_that_was_never_used(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for door in house.urls:
            status = await get(house, "chat/status", door)
            assert_fields(status, STATUS, nulls=("port", "last_used"))
            assert_fields(status, MORE_STATUS, nulls=("context_length", "expires_at"))
            told = ("unloaded", 0, 0, 0, None, None)
            names = ("status", "uptime", "memory_usage", "queue_length", "progress", "error")
            assert tuple(status[name] for name in names) == told
        assert house.journal("start") == [], "asking wakes nothing"


async def test_status_of_a_model_in_use_and_after(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        talks = asyncio.gather(*(talk(house, prefill=0.5) for _ in range(6)))
        await house.wait_for("request", 6)
        status = await get(house, "chat/status")
        assert_fields(status, STATUS)
        assert_fields(status, MORE_STATUS)
        assert (status["status"], status["slots"], status["queue_length"]) == ("loaded", {"busy": 4, "total": 4}, 2)
        assert status["context_length"] == 4096
        assert status["memory_usage"] > 10e6
        await talks
        status = await get(house, "chat/status", "ollama")
        assert (status["slots"]["busy"], status["queue_length"], status["draining"]) == (0, 0, False)
        age = datetime.now(UTC) - datetime.fromisoformat(status["last_used"])
        assert timedelta(0) <= age < timedelta(seconds=5)
        listed = await get(house, "chat")
        assert listed["status"] == "loaded"
        await post(house, "chat/stop")
        after = await get(house, "chat/status")
        assert_fields(after, STATUS, nulls=("port",))
        assert (after["status"], after["memory_usage"], after["uptime"]) == ("unloaded", 0, 0)
        assert after["last_used"] >= status["last_used"]


async def talk(house: House, **fake: Any) -> int:
    async with house.chat(fake=fake) as response:
        await response.read()
        return int(response.status)


async def test_status_tells_how_far_a_load_has_come(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-never", "--fake-print", "." * 37)) as house:
        started = await post(house, "chat/start")
        assert started == {"success": True, "port": None, "status": "starting", "id": "chat"}
        await house.wait_for("start")
        child = house.services.supervisor.instance(house.services.catalog.find("chat")).child  # type: ignore[union-attr]
        assert child is not None
        await house.until(lambda: child.log.loaded_fraction() is not None)
        status = await get(house, "chat/status")
        assert_fields(status, STATUS, nulls=("port", "last_used"))
        assert (status["status"], status["progress"]["stage"]) == ("loading", "loading")
        assert status["progress"]["fraction"] == 0.37
        assert 0 < status["progress"]["seconds"] < 60
        assert status["queue_length"] == 1
        assert status["memory_usage"] > 0
        await post(house, "chat/stop")
        assert (await get(house, "chat/status"))["status"] == "unloaded"


async def test_a_model_that_waits_for_room_is_loading_and_queued(tmp_path: Path) -> None:
    models: dict[str, dict[str, Any]] = {"chat": {}, "other": {}}
    async with open_house(tmp_path, models=models, supervisor={"max_loaded_models": 1}) as house:
        talking = asyncio.gather(talk(house, prefill=0.5))
        await house.wait_for("request")
        assert (await post(house, "other/start"))["status"] == "starting"
        status = await get(house, "other/status")
        assert (status["status"], status["progress"]["stage"], status["queue_length"]) == ("loading", "queued", 1)
        await talking
        assert (await post(house, "other/start?wait=true"))["status"] == "loaded"


async def test_a_failed_load_is_told_with_its_cause_and_without_paths(tmp_path: Path) -> None:
    flags = ("--fake-exit", "1", "--fake-print", f"unknown model architecture: 'gpt9' in {tmp_path}")
    async with open_house(tmp_path, flags=flags) as house:
        code, answer = await ask(house, "POST", "chat/start?wait=true")
        assert (code, answer["error"]["code"]) == (503, "service_unavailable")
        assert "gpt9" in answer["error"]["message"]
        status = await get(house, "chat/status")
        assert_fields(status, STATUS, nulls=("port", "last_used"))
        assert status["status"] == "error"
        assert "gpt9" in status["error"]
        assert str(tmp_path) not in json.dumps([answer, status])


async def test_a_broken_file_is_an_error_and_cannot_be_started(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "broken.gguf", {"tokenizer.ggml.model": None})
    async with open_house(tmp_path) as house:
        status = await get(house, "broken/status")
        assert (status["status"], "tokenizer" in status["error"]) == ("error", True)
        code, answer = await ask(house, "POST", "broken/start")
        assert (code, answer["error"]["code"], answer["error"]["param"]) == (400, "model_not_loaded", "model")
        assert_fields(await get(house, "broken/info"), INFO, nulls=("port",))


async def test_start_answers_at_once_or_when_it_is_loaded_and_twice_is_one_start(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.2")) as house:
        starting = {"success": True, "port": None, "status": "starting", "id": "chat"}
        assert [await post(house, "chat/start") for _ in range(2)] == [starting, starting]
        waited = await asyncio.gather(*(post(house, "chat/start?wait=true") for _ in range(5)))
        status = await get(house, "chat/status")
        loaded = {"success": True, "port": status["port"], "status": "loaded", "id": "chat"}
        assert waited == [loaded] * 5
        assert await post(house, "chat/start", door="ollama") == loaded
        assert len(house.journal("start")) == 1
        _, writer = await asyncio.open_connection("127.0.0.1", status["port"])
        writer.close()


async def test_a_start_goes_on_when_the_client_that_waits_for_it_leaves(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-slow", "0.3")) as house:
        with pytest.raises(TimeoutError):
            await post(house, "chat/start?wait=true", timeout=aiohttp.ClientTimeout(total=0.1))
        await house.until(lambda: house.services.supervisor.loaded() == ["chat"])
        assert len(house.journal("start")) == 1


async def test_overrides_reach_the_process_and_hold_until_it_is_unloaded(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first = await post(house, "chat/start?wait=true", json={"ctx_size": 512, "parallel": 2})
        status = await get(house, "chat/status")
        assert (status["context_length"], status["slots"]["total"]) == (512, 2)
        same = await post(house, "chat/start", json={"parallel": 2, "ctx_size": 512})
        assert same == first
        await post(house, "chat/start?wait=true", json={"ctx_size": 1024})
        status = await get(house, "chat/status")
        assert (status["context_length"], status["slots"]["total"]) == (1024, 4)
        assert len(house.journal("start")) == 2
        await post(house, "chat/stop")
        await talk(house)
        assert (await get(house, "chat/status"))["context_length"] == 4096


async def test_a_whole_number_is_one_however_it_is_written(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await post(house, "chat/start?wait=true", json={"ctx_size": 512.0, "parallel": 2.0, "ttl_seconds": 60})
        status = await get(house, "chat/status")
        assert (status["context_length"], status["slots"]["total"]) == (512, 2)


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({"ctx_size": 512.5}, "ctx_size"),
        ({"ctx_size": "4096"}, "ctx_size"),
        ({"ctx_size": -1}, "ctx_size"),
        ({"ctx_size": 1e308}, "ctx_size"),
        ({"parallel": 0}, "parallel"),
        ({"parallel": True}, "parallel"),
        ({"tensor_split": ["a"]}, "tensor_split"),
        ({"cache_type_k": "q9"}, "cache_type_k"),
        ({"num_ctx": 1}, "num_ctx"),
        ({"extra_args": ["--rpc", "evil:1"]}, "extra_args"),
        ({"mmproj": "/etc/passwd"}, "mmproj"),
        ({"lora": ["/etc/passwd"]}, "lora"),
        ({"model_draft": "/etc/passwd"}, "model_draft"),
        ({"chat_template_file": "/etc/passwd"}, "chat_template_file"),
        ({"runtime": "llama-server"}, "runtime"),
    ],
)
async def test_a_wrong_override_names_its_field_and_starts_nothing(
    tmp_path: Path, document: dict[str, Any], param: str
) -> None:
    async with open_house(tmp_path) as house:
        code, answer = await ask(house, "POST", "chat/start", json=document)
        assert (code, answer["error"]["code"], answer["error"]["param"]) == (400, "invalid_request", param)
        assert param in answer["error"]["message"]
        assert "passwd" not in answer["error"]["message"]
        assert house.journal("start") == []


async def test_a_list_that_is_too_long_is_refused_before_each_item_is_judged(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        code, answer = await ask(house, "POST", "chat/start", json={"device": [0] * 100_000})
        assert (code, answer["error"]["message"]) == (400, "'device' has more than 256 items.")


async def test_bodies_and_flags_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for path, options in (
            ("start", {"data": b"[]"}),
            ("start", {"data": b"{"}),
            ("start", {"data": b'{"ctx_size": NaN}'}),
            ("start?wait=perhaps", {}),
            ("stop?force=2", {}),
        ):
            code, answer = await ask(house, "POST", f"chat/{path}", **options)
            assert (code, answer["error"]["code"]) == (400, "invalid_request"), path
        assert house.journal("start") == []
        for data in (b"{}", b""):
            await post(house, "chat/start?wait", data=data)


async def test_stop_lets_running_answers_finish_and_later_requests_start_it_again(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        running = asyncio.gather(talk(house, tokens=10, delay=0.05))
        await house.wait_for("request")
        stopping = asyncio.gather(post(house, "chat/stop"))
        entry = house.services.catalog.find("chat")
        await house.until(lambda: bool(house.services.supervisor.unit(entry).draining))  # type: ignore[union-attr]
        status = await get(house, "chat/status")
        assert (status["status"], status["draining"]) == ("loaded", True)
        late = asyncio.gather(talk(house))
        assert await running == [200]
        assert await stopping == [{"success": True, "status": "stopped", "id": "chat"}]
        assert await late == [200]
        assert len(house.journal("start")) == 2


async def test_stop_by_force_waits_for_nobody(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        running = asyncio.gather(talk(house, prefill=30))
        await house.wait_for("request")
        assert (await post(house, "chat/stop?force=true"))["status"] == "stopped"
        assert await running == [502]
        assert not alive(house.journal("start")[0]["pid"])


async def test_stopping_what_is_not_loaded_is_a_success(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-exit", "1")) as house:
        stopped = {"success": True, "status": "stopped", "id": "chat"}
        assert await post(house, "chat/stop") == stopped
        await ask(house, "POST", "chat/start?wait=true")
        assert (await get(house, "chat/status"))["status"] == "error"
        assert await post(house, "chat/stop") == stopped
        assert (await get(house, "chat/status"))["status"] == "unloaded"


async def test_stopping_while_it_loads_refuses_those_who_wait(tmp_path: Path) -> None:
    async with open_house(tmp_path, flags=("--fake-never",)) as house:
        waiting = asyncio.gather(ask(house, "POST", "chat/start?wait=true"))
        (start,) = await house.wait_for("start")
        await post(house, "chat/stop")
        ((code, answer),) = await waiting
        assert (code, answer["error"]["code"]) == (503, "service_unavailable")
        assert not alive(start["pid"])


async def test_info_is_what_the_file_says(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"chat": {"metadata": {"general.license": "mit"}}}) as house:
        for door in house.urls:
            info = await get(house, "chat/info", door)
            assert_fields(info, INFO, nulls=("port",))
            file = tmp_path / "models" / "chat.gguf"
            assert (info["path"], info["size"], info["parameters"]) == (str(file), file.stat().st_size, 128)
            assert (info["format"], info["architecture"], info["context_length"]) == ("GGUF", "llama", 4096)
            assert (info["license"], info["embedding_length"], info["chat_template"]) == ("mit", 32, True)
            assert (info["quantization"], info["files"]) == ("F32", 1)
            assert "chat" in info["capabilities"]
        started = await post(house, "chat/start?wait=true")
        info = await get(house, "chat/info")
        assert (info["loaded"], info["port"]) == (True, started["port"])


async def test_info_of_a_model_in_several_files_has_the_size_of_all(tmp_path: Path) -> None:
    files = [f"big-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for name in files:
        write_model(tmp_path / "models" / name, {"split.count": 2})
    async with open_house(tmp_path, models={}) as house:
        info = await get(house, "big/info")
        assert info["size"] == sum((tmp_path / "models" / name).stat().st_size for name in files)
        assert (info["parameters"], info["files"]) == (256, 2)


@pytest.mark.parametrize("name", NAMES)
async def test_ids_with_slashes_and_colons(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "models" / "publisher" / "name" / "name.gguf")
    async with open_house(tmp_path, models={}) as house:
        (entry,) = house.services.catalog.entries
        assert (await get(house, name))["id"] == entry.id
        for what in ("status", "info"):
            assert (await get(house, f"{name}/{what}"))["id"] == entry.id
        assert (await post(house, f"{name}/start?wait=1"))["id"] == entry.id
        assert (await post(house, f"{name}/stop"))["id"] == entry.id


async def test_a_model_may_be_called_as_a_path_ends(tmp_path: Path) -> None:
    async with open_house(tmp_path, models={"status": {}, "info": {}}) as house:
        assert (await get(house, "status"))["object"] == "model"
        assert (await get(house, "status/status"))["id"] == "status"
        assert (await get(house, "info/status"))["id"] == "info"


async def test_unknown_models_and_wrong_methods(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for method, what in (("GET", "status"), ("GET", "info"), ("POST", "start"), ("POST", "stop")):
            for name in ("nobody", "a/b", "..%2Fchat", "chat%00", "x" * 3000):
                code, answer = await ask(house, method, f"{name}/{what}")
                assert (code, answer["error"]["code"], answer["error"]["param"]) == (404, "model_not_found", "model")
        for method, what in (
            ("POST", "status"),
            ("DELETE", "info"),
            ("PUT", "start"),
            ("GET", "start"),
            ("GET", "stop"),
        ):
            code, answer = await ask(house, method, f"chat/{what}")
            assert (code, answer["error"]["code"]) == (405, "method_not_allowed")
        assert house.journal("start") == []


async def test_errors_are_in_the_callers_language(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        _, answer = await ask(house, "POST", "nobody/start", headers={"anthropic-version": "2023-06-01"})
        assert (answer["type"], answer["error"]["type"]) == ("error", "not_found_error")


async def test_f13_starts_and_stops_from_fifty_clients_leave_one_process_or_none(tmp_path: Path) -> None:
    """At no moment are there two, and the last word counts."""

    def running() -> int:
        return sum(alive(start["pid"]) for start in house.journal("start"))

    async def client(number: int) -> None:
        """Start it, and again or let some stop it; who was refused since it was stopped tries once more."""
        body = {"ctx_size": 512} if number == 7 else None
        for verb in ("start?wait=1", STOPS.get(number % 20, "start")) * 5:
            code = 503
            while code != 200:
                assert code == 503
                code, _ = await ask(house, "POST", f"chat/{verb}", json=body, door=doors[number % 2])
                await asyncio.sleep(dice.uniform(0, 0.05))

    async def watch() -> None:
        while True:
            assert running() <= 1
            await asyncio.sleep(0.01)

    dice = random.Random(13)
    async with open_house(tmp_path) as house:
        doors = list(house.urls)
        watching = asyncio.gather(watch())
        await asyncio.gather(*(client(number) for number in range(50)))
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert (await post(house, "chat/start?wait=1"))["status"] == "loaded"
        assert running() == 1
        assert (await get(house, "chat/status"))["status"] == "loaded"
        await post(house, "chat/stop")
        assert running() == 0
        assert (await get(house, "chat/status"))["status"] == "unloaded"
        assert len(house.journal("loaded")) >= 5
