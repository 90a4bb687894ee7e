"""The verbs that ask a running server, as processes, against the real runtime and the demo models."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.house.conftest import House, OpenHouse, environment
from tests.house.terminal import Ran, run, surroundings, terminal, verb
from tests.verbs.test_address import FREE

SPEECH = Path(__file__).parents[1] / "fixtures" / "speech"
CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris.\n"
STEERING = {
    "model": "steering",
    "from": "demo-chat",
    "system": "\x1b[2J\x9b1mcafé",
    "license": "\x1b]0;title\x07",
    "stream": False,
}
HEAVY = ("aiohttp", "asyncio", "pydantic", "jsonschema", "rich", "yaml", "huggingface_hub", "llamarunner.server")


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as house:
        yield house


async def make(house: House, model: dict[str, object]) -> None:
    url = f"{house.urls['Ollama']}/api/create"
    async with aiohttp.ClientSession() as session, session.post(url, json=model) as made:
        assert made.status == 200


def table(ran: Ran) -> list[list[str]]:
    assert (ran.code, ran.err) == (0, "")
    return [re.split(r"\s{2,}", line) for line in ran.out.splitlines()]


async def test_models_are_listed_run_and_stopped(house: House) -> None:
    titles, *models, speech = table(await verb(house, "ls"))
    assert titles == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert sorted(one[0] for one in models) == ["demo-chat:latest", "demo-embed:latest", "demo-vision:latest"]
    assert all(re.fullmatch(r"[0-9a-f]{12}", one[1]) and one[2].endswith(" MB") for one in models)
    assert speech[:2] == ["demo-whisper", "-"]
    assert re.fullmatch(r"\d+(\.\d)? MB", speech[2])
    assert len(table(await verb(house, "list", "DEMO-V"))) == 2
    assert len(table(await verb(house, "ps"))) == 1
    assert await verb(house, "run", "--no-think", "demo-chat", CAPITAL) == Ran(0, PARIS, "")
    titles, running = table(await verb(house, "ps"))
    assert titles == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert (running[0], running[4]) == ("demo-chat:latest", "2048")
    assert running[5].endswith(" from now")
    assert await verb(house, "stop", "demo-chat") == Ran(0, "", "")
    assert len(table(await verb(house, "ps"))) == 1


async def test_a_model_that_hears_is_shown_and_says_how_it_is_asked(house: House) -> None:
    shown = await verb(house, "show", "demo-whisper")
    assert shown.out.startswith("  Model\n    id        demo-whisper\n    format    CTranslate2\n"), shown
    assert json.loads((await verb(house, "show", "demo-whisper", "--json")).out)["id"] == "demo-whisper"
    ran = await verb(house, "run", "demo-whisper", "hello")
    assert (ran.code, ran.out) == (1, "")
    assert "POST /v1/audio/transcriptions" in ran.err
    form = aiohttp.FormData({"model": "demo-whisper"})
    form.add_field("file", (SPEECH / "german.wav").read_bytes(), filename="german.wav")
    url = f"{house.urls['Ollama']}/v1/audio/transcriptions"
    async with aiohttp.ClientSession() as session, session.post(url, data=form) as heard:
        assert heard.status == 200
    name, _, size, *_, until = table(await verb(house, "ps"))[1]
    assert name == "demo-whisper"
    assert re.fullmatch(r"5\d minutes from now", until)
    assert re.fullmatch(r"[1-9]\d{2} MB", size)


async def test_json_is_what_the_api_says(house: House) -> None:
    tags, loaded = await verb(house, "ls", "--json"), await verb(house, "ps", "--json")
    shown = await verb(house, "show", "demo-chat", "--json")
    answer = await verb(house, "run", "demo-chat", CAPITAL, "--json")
    copied = await verb(house, "cp", "demo-chat", "mine", "--json")
    deleted = await verb(house, "rm", "mine", "--json")
    stopped = await verb(house, "stop", "demo-chat", "--json")
    assert "demo-chat:latest" in [one["model"] for one in json.loads(tags.out)["models"]]
    assert json.loads(loaded.out) == {"models": []}
    assert json.loads(shown.out)["model_info"]["general.architecture"]
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert "".join(one["message"]["content"] for one in lines) == "The capital of France is Paris."
    assert lines[-1]["done"] is True
    assert json.loads(copied.out) == {"status": "success", "source": "demo-chat", "destination": "mine"}
    assert json.loads(deleted.out) == {"status": "success", "model": "mine"}
    assert json.loads(stopped.out)["done_reason"] == "unload"


async def test_show_tells_what_is_known(house: House) -> None:
    shown = await verb(house, "show", "demo-chat")
    template = await verb(house, "show", "demo-chat", "--only", "template")
    assert shown.out.startswith("  Model\n    architecture        qwen3\n    parameters          1.75M\n")
    assert "\n\n  Capabilities\n    completion\n    tools\n    thinking\n" in shown.out
    assert "{%" in template.out


async def test_copies_are_models_until_they_are_removed(house: House) -> None:
    assert await verb(house, "cp", "demo-chat", "mine:1") == Ran(0, "copied 'demo-chat' to 'mine:1'\n", "")
    assert [row[0] for row in table(await verb(house, "ls", "mine"))] == ["NAME", "mine:1"]
    assert await verb(house, "rm", "mine:1") == Ran(0, "deleted 'mine:1'\n", "")
    assert await verb(house, "rm", "mine:1") == Ran(1, "", "llamarunner: model 'mine:1' not found\n")


async def test_a_beginning_that_no_model_has_is_told(house: House) -> None:
    assert await verb(house, "ls", "xx") == Ran(0, "There is no model whose name begins with 'xx'.\n", "")


async def test_what_is_piped_in_comes_before_the_prompt(house: House) -> None:
    words = ("run", "--no-think", "demo-chat")
    assert (await verb(house, *words, stdin=f"{CAPITAL}\n")).out == PARIS
    system = await verb(house, *words, "--verbose", CAPITAL, stdin="")
    assert system.out == PARIS
    assert re.match(r"total \d+\.\d\d s, load .*, answer \d+ tokens at [\d.]+/s\n", system.err)


async def test_bytes_that_are_no_text_are_said_as_far_as_they_are(house: House) -> None:
    ran = await verb(house, "run", "--no-think", "demo-chat", stdin=f"{CAPITAL} ".encode() + b"\xff\xfe")
    assert ran.code == 0, ran.err
    assert ran.out


async def test_any_standard_streams_will_do(house: House) -> None:
    await make(house, STEERING)
    narrow = surroundings(house) | {"PYTHONIOENCODING": "ascii"}
    shown = await run(house.folder, "show", "steering", "--only", "system", env=narrow)
    assert (shown.code, shown.err) == (0, "")
    assert "caf?" in shown.out
    program = f"{sys.executable} -m llamarunner run --no-think demo-chat {CAPITAL!r} <&-"
    process = await asyncio.create_subprocess_shell(program, stdout=asyncio.subprocess.PIPE, env=surroundings(house))
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert out.decode() == PARIS


async def test_what_is_known_of_a_model_cannot_steer_the_terminal(house: House) -> None:
    await make(house, STEERING)
    async with terminal(house.folder, "show", "steering", env=surroundings(house)) as screen:
        shown = await screen.until("]0;title")
        assert await screen.end() == 0
    async with terminal(house.folder, "show", "steering", "--only", "system", env=surroundings(house)) as screen:
        only = await screen.until("café")
    assert "\x1b" not in shown + only
    assert "\x9b" not in shown + only
    assert "\x1b" in (await verb(house, "show", "steering", "--only", "system")).out, "a file gets all of it"


async def test_mistakes_end_with_a_word_and_a_code(house: House) -> None:
    absent = await verb(house, "run", "nope", "hello")
    embed = await verb(house, "run", "demo-embed", "hello")
    usage = await verb(house, "run")
    chat = await verb(house, "run", "demo-chat", "--json", "--think", stdin="")
    assert absent == Ran(1, "", "llamarunner: The model 'nope' is not here. Pull it with: llamarunner pull nope\n")
    assert embed == Ran(1, "", 'llamarunner: "demo-embed" does not support chat\n')
    assert (usage.code, "Missing argument 'MODEL'" in usage.err) == (2, True)
    assert chat.code == 2
    assert chat.err.endswith("Error: There is nothing to say; give a PROMPT, or pipe one in.\n")


async def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    env = environment(tmp_path) | {"OLLAMA_HOST": f"127.0.0.1:{FREE}"}
    for words in (["ls"], ["ps", "--json"], ["run", "x", "hello"], ["pull", "x"]):
        ran = await run(tmp_path, *words, env=env)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.endswith(f"127.0.0.1:{FREE} (Connection refused).\nStart it with: llamarunner serve\n")


async def test_the_settings_say_where_the_server_is_and_its_key(open_house: OpenHouse) -> None:
    limitless = {"requests_per_minute": None, "concurrent_requests": None, "streaming_connections": None}
    door = {"port": 0, "api_keys": ["secret"], "rate_limits": limitless}
    async with open_house({"proxies": {"ollama": door, "lmstudio": {"enabled": False}}}) as house:
        port = int(house.urls["Ollama"].rpartition(":")[2])
        settings = house.folder / "client" / "config.json"
        settings.parent.mkdir()
        settings.write_text(json.dumps({"proxies": {"ollama": {**door, "port": port}}}))
        with_key = await run(house.folder, "ls", env=environment(house.folder) | {"LLAMARUNNER_CONFIG": str(settings)})
        without = await verb(house, "ls")
        told = await verb(house, "ls", "--key", "secret")
        by_environment = await run(house.folder, "ls", env=surroundings(house) | {"LLAMARUNNER_API_KEY": "secret"})
    assert [one.code for one in (with_key, without, told, by_environment)] == [0, 1, 0, 0]
    assert "key" in without.err


async def test_ps_imports_nothing_heavy(house: House) -> None:
    env = surroundings(house) | {"PYTHONPROFILEIMPORTTIME": "1"}
    ran = await run(house.folder, "ps", env=env)
    imported = {line.rpartition("|")[2].strip() for line in ran.err.splitlines()}
    assert "click" in imported
    assert not imported & {*HEAVY}


async def test_a_reader_that_has_enough_ends_it_quietly(house: House) -> None:
    program = f"{sys.executable} -m llamarunner show demo-chat --json --verbose | head -c 1"
    process = await asyncio.create_subprocess_shell(
        program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=surroundings(house)
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (out, err) == (b"{", b"")
