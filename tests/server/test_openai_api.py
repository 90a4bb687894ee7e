"""The paths of models, from the outside."""

from __future__ import annotations

import json
from pathlib import Path

from doors import open_house


async def test_a_chat_is_answered_in_one_piece(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.chat() as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json"
        answer = await response.json()
        assert answer["model"] == "chat"
        assert answer["choices"][0]["message"]["content"] == "t0 t1 t2 t3 t4 "


async def test_a_stream_passes_as_bytes(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, house.chat(stream=True) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        events = (await response.text()).split("\n\n")
        assert [json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events[:5]] == [
            "t0 ",
            "t1 ",
            "t2 ",
            "t3 ",
            "t4 ",
        ]
        assert events[5:] == ["data: [DONE]", ""]
