"""The interactive chat, on a terminal, with children that do as they are told."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llamarunner.dialects.ollama.options import LOADING, SAMPLING
from llamarunner.verbs.chat import PARAMETERS
from tests.house.conftest import House, OpenHouse, with_fakes
from tests.house.terminal import CTRL_C, CTRL_D, Terminal, surroundings, terminal, verb
from tests.programs.write_gguf import write_projector

READY = ">>> "
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
async def house(open_house: OpenHouse, tmp_path: Path, fake_llama: Path) -> AsyncIterator[House]:
    async with open_house(with_fakes(tmp_path, fake_llama, {"demo-chat": []})) as house:
        yield house


def chat(house: House, *words: str) -> AbstractAsyncContextManager[Terminal]:
    return _chat(house, words)


@asynccontextmanager
async def _chat(house: House, words: tuple[str, ...]) -> AsyncIterator[Terminal]:
    async with terminal(house.folder, "run", "demo-chat", *words, env=surroundings(house)) as opened:
        await opened.until(READY)
        yield opened


def told(**told: Any) -> str:
    """What makes the child do as it is told."""
    return json.dumps(told)


def asked(house: House) -> list[dict[str, Any]]:
    """What the model was asked, chat by chat."""
    bodies = house.journal("demo-chat").facts("body")
    return [one["body"] for one in bodies if one["path"] == "/v1/chat/completions"]


async def test_a_conversation_goes_on_and_control_d_ends_it(house: House) -> None:
    async with chat(house) as screen:
        screen.type(f"{told(tokens=3)}\n")
        first = await screen.until(READY)
        screen.type("and then?\n")
        await screen.until(READY)
        screen.type(CTRL_D)
        assert await screen.end() == 0
    assert first.endswith("t0 t1 t2 \r\n\r\n")
    said = [(one["role"], one["content"]) for one in asked(house)[1]["messages"]]
    assert said == [("user", told(tokens=3)), ("assistant", "t0 t1 t2 "), ("user", "and then?")]


async def test_control_c_stops_the_answer_and_keeps_the_session(house: House) -> None:
    async with chat(house) as screen:
        screen.type(f"{told(tokens=100_000, delay=0.01)}\n")
        await screen.until("t5 ")
        screen.type(CTRL_C)
        await screen.until(READY)
        await house.journal("demo-chat").wait_for("hangup")
        screen.type("go on\n")
        await screen.until(READY)
        screen.type("/bye\n")
        assert await screen.end() == 0
    messages = asked(house)[-1]["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"].startswith("t0 t1 ")


async def test_control_c_at_the_prompt_tells_how_to_leave(house: House) -> None:
    async with chat(house) as screen:
        screen.type(f"half a sent{CTRL_C}")
        assert "Use Ctrl-D or /bye to leave." in await screen.until(f"\r\n{READY}")
        screen.type("/bye\n")
        assert await screen.end() == 0
    assert asked(house) == []


async def test_control_c_ends_a_single_answer_with_130(house: House) -> None:
    words = ("run", "demo-chat", told(tokens=100_000, delay=0.01))
    async with terminal(house.folder, *words, env=surroundings(house)) as screen:
        await screen.until("t5 ")
        screen.type(CTRL_C)
        assert await screen.end() == 130
        await screen.until("interrupted")
    await house.journal("demo-chat").wait_for("hangup")


async def test_thoughts_are_dim_and_can_be_hidden(house: House) -> None:
    thinking = told(deltas=[{"reasoning_content": "Hm. "}, {"reasoning_content": "So.\n"}, {"content": "Yes."}])
    async with chat(house) as screen:
        screen.type(f"{thinking}\n")
        shown = await screen.until(READY)
    async with chat(house, "--hide-thinking") as screen:
        screen.type(f"{thinking}\n")
        hidden = await screen.until(READY)
    assert shown.endswith("\x1b[2mHm. So.\r\n\x1b[0m\r\nYes.\r\n\r\n")
    assert "So.\r\n" not in hidden.partition("\r\n")[2]
    assert hidden.endswith("Yes.\r\n\r\n")


async def test_what_a_model_says_cannot_steer_the_terminal(house: House) -> None:
    async with chat(house) as screen:
        screen.type(f"{told(deltas=[{'content': 'a' + chr(27) + ']0;title' + chr(7) + chr(0x9B) + 'b'}])}\n")
        assert (await screen.until(READY)).endswith("\r\na]0;titleb\r\n\r\n")


async def test_pictures_that_are_named_go_along(open_house: OpenHouse, tmp_path: Path, fake_llama: Path) -> None:
    settings = with_fakes(tmp_path, fake_llama, {"demo-chat": []})
    write_projector(tmp_path / "models" / "mmproj-demo-chat.gguf")
    (tmp_path / "a.png").write_bytes(PIXEL)
    async with open_house(settings) as house:
        async with chat(house) as screen:
            screen.type(f"what is in {tmp_path}/a.png? or gone.png\n")
            assert f"Added image '{tmp_path}/a.png'" in await screen.until(READY)
        ran = await verb(house, "run", "demo-chat", f"{tmp_path}/a.png", stdin=f"not {tmp_path}/a.png")
        assert (ran.code, ran.err) == (0, f"Added image '{tmp_path}/a.png'\n")
        first, second = ([part for part in one["messages"][-1]["content"]] for one in asked(house))
    assert (
        [part["type"] for part in first].count("image_url") == [part["type"] for part in second].count("image_url") == 1
    )
    assert "what is in ? or gone.png" in [part.get("text") for part in first]
    assert f"not {tmp_path}/a.png" in [part.get("text") for part in second]


async def test_a_model_without_eyes_is_told_the_path(house: House, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PIXEL)
    ran = await verb(house, "run", "demo-chat", f"{tmp_path}/a.png", stdin="")
    assert (ran.code, ran.err) == (0, "")
    assert asked(house)[0]["messages"][-1]["content"] == f"{tmp_path}/a.png"


def test_the_parameters_are_those_that_the_server_takes() -> None:
    assert {*SAMPLING, *LOADING} == PARAMETERS


async def test_commands_change_how_the_model_is_asked(house: House) -> None:
    async with chat(house, "--system", "First.") as screen:
        for line in (
            "one",
            "/clear",
            "/set system Be\tbrief.",
            "/set parameter temperature 0.25",
            "/set parameter stop END",
            "/set nothink",
            "/set verbose",
            "two",
        ):
            screen.type(f"{line}\n")
            seen = await screen.until(READY)
        screen.type("/set nonsense\n")
        assert "It is one of: /set system TEXT" in await screen.until(READY)
        screen.type("/set parameter foo 1\n")
        assert "There is no parameter foo; there are: draft_num_predict," in await screen.until(READY)
        screen.type("/nonsense\n")
        assert "There is no /nonsense; /help tells" in await screen.until(READY)
        screen.type("/show\n")
        assert "  Capabilities\r\n    completion\r\n" in await screen.until(READY)
        screen.type("/help\n")
        assert "/set system TEXT" in await screen.until(READY)
    first, second = asked(house)
    assert first["messages"] == [{"role": "system", "content": "First."}, {"role": "user", "content": "one"}]
    assert [one["content"] for one in second["messages"]][1:] == ["two"]
    assert (second["temperature"], second["stop"]) == (0.25, ["END"])
    assert second["chat_template_kwargs"] == {"enable_thinking": False}
    assert "total " in seen


async def test_several_lines_are_one_message(house: House) -> None:
    async with chat(house) as screen:
        screen.type('"""one\n')
        await screen.until("... ")
        screen.type("/bye\n")
        await screen.until("... ")
        screen.type('three"""\n')
        await screen.until(READY)
    assert asked(house)[0]["messages"] == [{"role": "user", "content": "one\n/bye\nthree"}]


async def test_a_failure_is_told_and_the_session_goes_on(house: House) -> None:
    async with chat(house) as screen:
        screen.type(f"{told(tokens=2, then='die')}\n")
        assert "Error: an error was encountered while running the model" in await screen.until(READY)
        screen.type("again\n")
        assert "t0" in await screen.until(READY)


async def test_what_was_typed_is_there_the_next_time(house: House) -> None:
    async with chat(house) as screen:
        screen.type("remember me\n")
        await screen.until(READY)
        screen.type("/bye\n")
        assert await screen.end() == 0
    async with chat(house) as screen:
        screen.type("\x1b[A\x1b[A\n")  # twice up
        await screen.until(READY)
    assert [one["messages"][-1]["content"] for one in asked(house)] == ["remember me", "remember me"]
    kept = next((house.folder / "home").rglob("chat_history"))
    assert kept.stat().st_mode & 0o777 == 0o600
