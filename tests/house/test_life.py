"""The life and death of the whole program: signals, kills, wrong settings, taken ports."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shlex
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import psutil
import pytest

from llamarunner.config import bundled
from tests.conftest import UNLIMITED_DOORS, alive, eventually, on_ci
from tests.house.conftest import DEMO_MODELS, House, OpenHouse, environment, start, with_fakes

QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
BROKEN = ("{", '{"proxies": {"olama": {}}}', "", "proxies: 0x" + "f" * 20_000, "[" * 5000)
CHAT = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}


async def stream(http: aiohttp.ClientSession, url: str, **fake: object) -> bytes:
    """Stream one chat to its end; raises if the stream is cut."""
    async with http.post(f"{url}/v1/chat/completions", json={**CHAT, "stream": True, "fake": fake}) as response:
        assert response.status == 200
        return await response.read()


@pytest.mark.skipif(not shutil.which("curl") and not on_ci(), reason="curl is not installed")
async def test_greeting_names_doors_models_and_an_example_that_works(open_house: OpenHouse) -> None:
    async with open_house() as house:
        assert set(house.urls) == {"Ollama", "LM Studio"}
        assert house.greeting[-2].split(maxsplit=1) == ["Models", ", ".join(DEMO_MODELS)]
        command = house.greeting[-1].split("Try", 1)[1].strip()
        curl = await asyncio.create_subprocess_shell(f"{command} -s", stdout=asyncio.subprocess.PIPE)
        answer = json.loads((await curl.communicate())[0])
        assert "Paris" in answer["choices"][0]["message"]["content"]


async def test_where_only_recordings_are_heard_the_example_says_that_one_is_needed(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    shutil.copytree(bundled("models") / "demo-whisper", tmp_path / "own" / "ear")
    async with open_house({"catalog": {"folders": [str(tmp_path / "own")], "demo_models": "hide"}}) as house:
        assert house.greeting[-2].split(maxsplit=1) == ["Models", "ear"]
        assert house.greeting[-1].endswith("/v1/audio/transcriptions -F file=@YOUR_RECORDING.wav -F model=ear")


async def test_the_example_is_for_lm_studios_door_also_beside_the_wrappers(open_house: OpenHouse) -> None:
    doors = {**UNLIMITED_DOORS, "wrapper": {"enabled": True, "port": 0}}
    async with open_house({"proxies": doors}) as house:
        assert f"curl {house.urls['LM Studio']}/v1/chat/completions " in house.greeting[-1]


async def test_idle_server_is_small_and_opens_within_a_second_of_cpu_time(open_house: OpenHouse) -> None:
    async with open_house() as house:
        process = psutil.Process(house.process.pid)
        assert process.memory_info().rss < 100e6
        assert sum(process.cpu_times()[:2]) < 2.0


async def test_the_end_of_the_runtimes_first_question_is_no_failure_of_the_runtime(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    program, asked = tmp_path / "llama-server", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\n: > '{asked}'\nexec sleep 60\n")
    program.chmod(0o755)
    async with open_house({"runtime": {"kind": "llama-server", "binary": str(program)}}) as house:
        await eventually(asked.exists)
        house.process.send_signal(signal.SIGTERM)
        assert await house.process.wait() == 0
        assert "does not work" not in house.log()


@pytest.mark.parametrize("drain_seconds", [30, 0.3])
async def test_f40_sigterm_lets_streams_finish_or_ends_them_with_an_event(
    tmp_path: Path, fake_llama: Path, drain_seconds: float
) -> None:
    """A hundred streams: all finish within the drain time, or all end properly with an error event after it."""
    patient = drain_seconds > 1
    settings = with_fakes(tmp_path, fake_llama, {"a": []}, server={"drain_seconds": drain_seconds})
    house = await start(tmp_path, settings)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        async with http.get(f"{house.url}/health") as response:
            assert response.status == 200
        fake = {"tokens": 10 if patient else 1000, "delay": 0.1}
        streams = asyncio.gather(*(stream(http, house.url, **fake) for _ in range(100)))
        await house.journal("a").wait_for("token", 100)
        house.process.terminate()
        bodies = await streams
    assert await asyncio.wait_for(house.process.wait(), 20) == 0
    last = [body.strip().rsplit(b"\n\n", 1)[-1] for body in bodies]
    if patient:
        assert set(last) == {b"data: [DONE]"}
    else:
        assert all(
            json.loads(event.removeprefix(b"data: "))["error"]["code"] == "service_unavailable" for event in last
        )


async def test_draining_server_says_so_and_takes_nothing_new(tmp_path: Path, fake_llama: Path) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": []}))
    async with aiohttp.ClientSession() as http, aiohttp.ClientSession() as other:
        async with other.get(f"{house.url}/health"):
            pass
        running = asyncio.gather(stream(http, house.url, tokens=20, delay=0.05))
        await house.journal("a").wait_for("token")
        house.process.terminate()
        await asyncio.sleep(0.05)
        async with other.get(f"{house.url}/health") as response:
            assert (response.status, (await response.json())["status"]) == (503, "draining")
        async with other.post(f"{house.url}/v1/chat/completions", json=CHAT) as response:
            assert response.status == 503
            assert response.headers["Retry-After"]
            assert (await response.json())["error"]["code"] == "service_unavailable"
        assert (await running)[0].endswith(b"data: [DONE]\n\n")
    assert await house.process.wait() == 0


async def test_second_signal_skips_the_wait(tmp_path: Path, fake_llama: Path) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": ["--fake-stubborn"]}))
    async with aiohttp.ClientSession() as http:
        running = asyncio.gather(stream(http, house.url, tokens=1000, delay=0.05), return_exceptions=True)
        await house.journal("a").wait_for("token")
        began = time.monotonic()
        house.process.terminate()
        await asyncio.sleep(0.05)
        house.process.terminate()
        await running
        await asyncio.sleep(0.05)
        if house.process.returncode is None:
            house.process.terminate()
    assert await asyncio.wait_for(house.process.wait(), 10) == 0
    assert time.monotonic() - began < 5


@pytest.mark.timeout(240)  # several lives of a server
async def test_f41_no_child_survives_a_killed_server_and_the_next_one_serves(tmp_path: Path, fake_llama: Path) -> None:
    """Killed again and again at random moments, from before its first child to the middle of an answer."""
    dice = random.Random(41)
    settings = with_fakes(tmp_path, fake_llama, {"a": ["--fake-offspring", "--fake-stubborn"]})
    for _ in range(8):
        house = await start(tmp_path, settings)
        async with aiohttp.ClientSession() as http:
            running = asyncio.gather(stream(http, house.url, tokens=100, delay=0.02), return_exceptions=True)
            await asyncio.wait({running}, timeout=dice.uniform(0, 1.0))
            await kill_and_count(house)
            await running
    async with aiohttp.ClientSession() as http:
        house = await start(tmp_path, settings)
        assert (await stream(http, house.url)).endswith(b"data: [DONE]\n\n")
        house.process.terminate()
        await house.process.wait()


async def test_killed_keeper_is_replaced_and_the_new_one_does_its_duty(tmp_path: Path, fake_llama: Path) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": ["--fake-stubborn", "--fake-offspring"]}))

    def keepers() -> list[psutil.Process]:
        running = psutil.process_iter(["cmdline", "ppid"])
        ours = [process for process in running if process.info["ppid"] == house.process.pid]
        return [process for process in ours if any("keeper.py" in part for part in process.info["cmdline"] or ())]

    async with aiohttp.ClientSession() as http:
        await stream(http, house.url)
    await eventually(lambda: bool(keepers()))
    (first,) = keepers()
    first.kill()
    await eventually(lambda: any(keeper.pid != first.pid for keeper in keepers()))
    await asyncio.sleep(0.05)
    await kill_and_count(house)


async def kill_and_count(house: House) -> None:
    """Kill the server; a second later none of its processes is left, whatever was just being started."""
    below = {process.pid for process in house.children()}
    house.process.kill()
    await house.process.wait()
    below |= {fact["pid"] for what in ("start", "offspring") for fact in house.journal("a").facts(what)}
    await eventually(lambda: not any(map(alive, below)), 3)


async def run_to_its_end(folder: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llamarunner", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(folder),
        cwd=folder,
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, (out + err).decode()


async def test_f49_wrong_settings_end_with_every_mistake_at_once_and_nothing_started(tmp_path: Path) -> None:
    config = tmp_path / "settings.json"
    config.write_text('{"proxies": {"olama": {}, "lmstudio": {"port": 99999}}, "supervisor": {"ttl_seconds": "soon"}}')
    for verb in ("serve", "check"):
        code, said = await run_to_its_end(tmp_path, verb, "--config", str(config))
        assert code == 2
        for part in (
            "$.proxies.olama",
            "ollama",
            "$.proxies.lmstudio.port",
            "99999",
            "65535",
            "$.supervisor.ttl_seconds",
            "soon",
        ):
            assert part in said
        assert "Traceback" not in said


async def test_check_shows_what_is_in_force_and_which_runtime_and_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"proxies": {"lmstudio": {"port": 4321, "api_keys": ["secret-key"]}}}')
    code, said = await run_to_its_end(tmp_path, "check")
    assert code == 0
    assert '"port": 4321' in said
    assert "secret-key" not in said
    assert re.search(r"Runtime: xllamacpp [\d.]+, because no llama-server was found", said)


async def test_check_tells_what_plays_no_part(tmp_path: Path) -> None:
    models = {"demo-whisper": {"ctx_size": 4096, "ttl_seconds": 60}}
    settings = {"catalog": {"aliases": {"gpt-4": "gone"}}, "models": models}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    code, said = await run_to_its_end(tmp_path, "check")
    assert code == 0
    assert "Remark: $.catalog.aliases.gpt-4 names gone, and there is no such model." in said
    assert "Remark: $.models.demo-whisper.ctx_size plays no part" in said
    assert said.count("Remark:") == 2


async def test_f50_second_server_on_the_same_ports_says_so_and_leaves_the_first_alone(open_house: OpenHouse) -> None:
    async with open_house() as house:
        port = int(house.url.rsplit(":", 1)[1])
        other = house.folder / "other.json"
        other.write_text(json.dumps({"proxies": {"ollama": {"port": 0}, "lmstudio": {"port": port}}}))
        code, said = await run_to_its_end(house.folder, "serve", "--config", str(other))
        assert code == 1
        assert f"127.0.0.1:{port}" in said
        assert "Traceback" not in said
        async with aiohttp.ClientSession() as http, http.get(f"{house.url}/health") as response:
            assert response.status == 200


async def test_preloaded_models_are_loaded_without_a_request_and_a_wrong_name_is_reported(
    open_house: OpenHouse,
) -> None:
    async with open_house({"supervisor": {"preload": ["demo-chat", "no-such-model"]}}) as house:
        async with aiohttp.ClientSession() as http, asyncio.timeout(10):
            while True:
                async with http.get(f"{house.url}/v1/models/demo-chat") as response:
                    if (await response.json())["status"] == "loaded":
                        break
                await asyncio.sleep(0.02)
        said = "$.supervisor.preload[1] names no-such-model, and there is no such model"
        await eventually(lambda: house.log().count("no-such-model") == said.count("no-such-model"))
        assert said in house.log()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
async def test_closed_standard_streams_hurt_nobody(tmp_path: Path, closed: str) -> None:
    """Without standard output there is no greeting, so the port is one that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "s.json").write_text(
        json.dumps({"proxies": {"ollama": {"enabled": False}, "lmstudio": {"port": port}}})
    )
    command = f"exec {shlex.quote(sys.executable)} -m llamarunner serve --config s.json {closed}"
    devnull = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_shell(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=devnull, stderr=devnull
    )
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):
        answer = None
        while answer is None:
            try:
                async with http.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=QUESTION) as response:
                    answer = await response.json()
            except aiohttp.ClientConnectionError:
                assert process.returncode is None
                await asyncio.sleep(0.05)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_slow_runtime_does_not_hold_the_exit_up_and_does_not_outlive_a_killed_server(tmp_path: Path) -> None:
    """A program that never answers to --help."""
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\necho $$ >> "{tmp_path}/pids"\nexec sleep 300\n')
    program.chmod(0o755)
    settings = {"runtime": {"kind": "llama-server", "binary": str(program)}}
    for ending in (signal.SIGTERM, signal.SIGKILL):
        house = await start(tmp_path, settings)
        await eventually((tmp_path / "pids").exists)
        began = time.monotonic()
        house.process.send_signal(ending)
        await asyncio.wait_for(house.process.wait(), 10)
        assert time.monotonic() - began < 5
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
        await eventually(lambda pids=pids: not any(map(alive, pids)), 3)
        (tmp_path / "pids").unlink()


async def test_model_whose_file_is_replaced_is_loaded_anew(tmp_path: Path, fake_llama: Path) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": []}))
    file = tmp_path / "models" / "a.gguf"
    async with aiohttp.ClientSession() as http:
        await stream(http, house.url)
        new = file.with_suffix(".new")
        new.write_bytes(file.read_bytes() + b"\0" * 32)
        new.replace(file)
        await eventually(lambda: "a is unloaded (asked)" in house.log())
        await stream(http, house.url)
    assert len(house.journal("a").facts("start")) == 2
    house.process.terminate()
    assert await house.process.wait() == 0


async def test_interrupt_ends_the_server_like_a_termination(tmp_path: Path) -> None:
    house = await start(tmp_path, {})
    house.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(house.process.wait(), 10) == 0


async def test_f49_changed_settings_are_taken_over_under_load_and_wrong_ones_refused_whole(
    tmp_path: Path, fake_llama: Path
) -> None:
    """Ten changes, each second one broken, under constant load: no request fails, no child restarts."""
    settings = with_fakes(tmp_path, fake_llama, {"a": []})
    house = await start(tmp_path, settings)
    file = tmp_path / "settings.json"
    good = json.loads(file.read_text())
    statuses: list[int] = []

    async def client(http: aiohttp.ClientSession) -> None:
        while True:
            async with http.post(f"{house.url}/v1/chat/completions", json={**CHAT, "fake": {"tokens": 1}}) as response:
                statuses.append(response.status)

    async with aiohttp.ClientSession() as http:
        load = [asyncio.create_task(client(http)) for _ in range(4)]  # noqa: TID251 - cancelled below
        for number in range(5):
            good["catalog"]["aliases"] = {f"alias-{number}": "a"}
            await replace(file, json.dumps(good))
            await until_known(http, house, f"alias-{number}")
            await replace(file, BROKEN[number])
            await eventually(lambda count=number + 1: house.log().count("the old ones stay") >= count)
            await until_known(http, house, f"alias-{number}")
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
    assert set(statuses) == {200}
    assert len(house.journal("a").facts("start")) == 1
    house.process.terminate()
    assert await house.process.wait() == 0


async def test_model_whose_settings_changed_is_started_anew_and_keys_change_at_once(
    tmp_path: Path, fake_llama: Path
) -> None:
    house = await start(tmp_path, with_fakes(tmp_path, fake_llama, {"a": []}))
    file = tmp_path / "settings.json"
    changed = json.loads(file.read_text())
    changed["models"]["a"]["ctx_size"] = 512
    changed["proxies"]["lmstudio"]["api_keys"] = ["new-key"]
    async with aiohttp.ClientSession() as http:
        await stream(http, house.url)
        await replace(file, json.dumps(changed))
        await eventually(lambda: "the changed settings are in force" in house.log())
        async with http.post(f"{house.url}/v1/chat/completions", json=CHAT) as response:
            assert response.status == 401
        headers = {"Authorization": "Bearer new-key"}
        async with http.post(f"{house.url}/v1/chat/completions", json=CHAT, headers=headers) as response:
            assert response.status == 200
    sizes = [fact["argv"][fact["argv"].index("--ctx-size") + 1] for fact in house.journal("a").facts("start")]
    assert sizes == ["8192", "512"]
    house.process.terminate()
    assert await house.process.wait() == 0


async def replace(file: Path, text: str) -> None:
    """Change a file as editors do, whole."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def until_known(http: aiohttp.ClientSession, house: House, name: str) -> None:
    async with asyncio.timeout(10):
        while True:
            async with http.get(f"{house.url}/v1/models/{name}") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.02)
