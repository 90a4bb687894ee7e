"""Files that clients of LM Studio's sockets upload."""

from __future__ import annotations

import base64
from pathlib import Path

from doors import open_house
from sdk_talking import HELLO, Json, asking, dialled
from write_gguf import write_model, write_projector

from llamarunner.config import Door, RateLimits

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and so on").decode()


def picture(identifier: str) -> Json:
    part = {"type": "file", "name": "a", "identifier": identifier, "sizeBytes": 18, "fileType": "image"}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}]}


async def test_a_picture_is_shown_to_a_model_that_sees(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "eyes" / "eyes.gguf")
    write_projector(tmp_path / "models" / "eyes" / "mmproj-eyes.gguf")
    async with open_house(tmp_path) as house, dialled(house, "files") as files, dialled(house, "llm") as line:
        told = (await files.rpc("uploadFileBase64", {"name": "a.png", "contentBase64": PNG}))["result"]
        assert told == {"identifier": told["identifier"], "fileType": "image", "sizeBytes": 18}
        await line.load("chat", "eyes")
        shown = {"history": picture(told["identifier"])}
        _, end = await line.stream("predict", asking() | shown)
        assert end["error"]["title"] == "Model 'chat' does not support image inputs."
        _, end = await line.stream("predict", asking(model="eyes") | shown)
        assert end["type"] == "channelClose", end
        (parts,) = house.journal("parts")[0]["parts"]
        assert parts[1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


async def test_a_file_is_its_clients_alone_and_goes_with_it(tmp_path: Path) -> None:
    other = {**HELLO, "clientIdentifier": "another"}
    async with open_house(tmp_path) as house, dialled(house, "llm", other) as stranger:
        await stranger.load("chat")
        async with dialled(house, "files") as files:
            told = (await files.rpc("uploadFileBase64", {"name": "a.png", "contentBase64": PNG}))["result"]
            question = {**asking(), "history": picture(told["identifier"])}
            _, end = await stranger.stream("predict", question)
            assert end["error"]["errorData"]["param"] == "history.messages[0].content[1].identifier"
        view = next(view for view in house.services.views if view.name == "lmstudio")
        await house.until(lambda: not view.guests._files)
        async with dialled(house, "llm") as line:
            _, end = await line.stream("predict", question)
            assert "upload it again" in end["error"]["title"]


async def test_what_cannot_be_taken_is_told(tmp_path: Path) -> None:
    limits = RateLimits(requests_per_minute=None, file_upload_size_mb=1)
    async with open_house(tmp_path, door=Door(rate_limits=limits)) as house, dialled(house, "files") as line:
        for content, said in (("?", "base64"), ("A" * 1_400_000, "1 MB")):
            error = (await line.rpc("uploadFileBase64", {"name": "a", "contentBase64": content}))["error"]
            assert said in error["title"]
            assert error["errorData"]["param"] == "contentBase64"
