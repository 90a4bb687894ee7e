"""Both doors over the real speech worker and the demo model, and recordings to send."""

from __future__ import annotations

import io
import json
import time
import wave
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
from doors import NOWHERE, House

from llamarunner import app
from llamarunner.catalog import Catalog
from llamarunner.config import (
    NO_LIMITS,
    AudioSettings,
    CatalogSettings,
    Door,
    ServerSettings,
    Settings,
    SupervisorSettings,
)
from llamarunner.events import Bus
from llamarunner.fleet.launcher import Launcher
from llamarunner.fleet.supervisor import Supervisor
from llamarunner.server import listener
from llamarunner.server.client import Client
from llamarunner.server.drain import Drain
from llamarunner.server.services import Services

SPEECH = Path(__file__).parent.parent / "fixtures" / "speech"
CLIPS: dict[str, dict[str, Any]] = {
    clip["file"]: clip for clip in json.loads((SPEECH / "fixtures.json").read_text("utf-8"))
}
RATE = 16_000
PATH = "/v1/audio/transcriptions"
FORMATS: dict[str, tuple[str, str, dict[str, int]]] = {  # name → container, codec, and how to encode
    "wav": ("wav", "pcm_s16le", {}),
    "wav at 48 kHz": ("wav", "pcm_s16le", {"rate": 48_000}),
    "wav of bytes": ("wav", "pcm_u8", {}),
    "wav of 24 bits": ("wav", "pcm_s24le", {}),
    "wav of floats": ("wav", "pcm_f32le", {}),
    "wav of doubles": ("wav", "pcm_f64le", {}),
    "wav by A-law": ("wav", "pcm_alaw", {}),
    "wav by mu-law": ("wav", "pcm_mulaw", {}),
    "wav by IMA": ("wav", "adpcm_ima_wav", {}),
    "wav by Microsoft": ("wav", "adpcm_ms", {}),
    "w64": ("w64", "pcm_s16le", {}),
    "aiff": ("aiff", "pcm_s16be", {}),
    "au": ("au", "pcm_s16be", {}),
    "caf": ("caf", "pcm_s16be", {}),
    "mp3": ("mp3", "libmp3lame", {"bit_rate": 64_000}),
    "aac": ("adts", "aac", {"bit_rate": 64_000}),
    "m4a": ("ipod", "aac", {"bit_rate": 64_000}),
    "m4a without loss": ("ipod", "alac", {}),
    "mp4": ("mp4", "aac", {"bit_rate": 64_000}),
    "mov": ("mov", "pcm_s16le", {}),
    "ogg": ("ogg", "libopus", {"bit_rate": 32_000, "rate": 48_000}),
    "ogg of flac": ("ogg", "flac", {}),
    "flac": ("flac", "flac", {}),
    "webm": ("webm", "libopus", {"bit_rate": 32_000, "rate": 48_000}),
    "mkv": ("matroska", "flac", {}),
    "mpeg": ("mpeg", "mp2", {"bit_rate": 64_000}),
    "wma": ("asf", "wmav2", {"bit_rate": 64_000}),
}


@asynccontextmanager
async def open_house(
    folder: Path,
    *,
    door: Door | None = None,
    server: dict[str, Any] | None = None,
    audio: dict[str, Any] | None = None,
    catalog: dict[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Open both doors; uploads lie below `folder`, and are gone at the end."""
    uploads = folder / "uploads"
    uploads.mkdir()
    settings = Settings(
        catalog=CatalogSettings(discover=NOWHERE, **(catalog or {})),
        server=ServerSettings(**(server or {})),
        audio=AudioSettings(upload_folder=uploads, **(audio or {})),
        supervisor=SupervisorSettings(memory_check=False),
    )
    known = Catalog(settings)
    known.scan()
    bus = Bus()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client())
        supervisor = Supervisor(settings, Launcher(settings), app.prober(client), bus)
        await stack.enter_async_context(supervisor)
        services = Services(settings, known, supervisor, bus, client, Drain(), "1.2.3", time.monotonic())
        stack.callback(services.spool.close)
        urls = {}
        for name in ("ollama", "lmstudio"):
            opening = listener.opened(
                door or Door(rate_limits=NO_LIMITS), name, services, listener.bind("127.0.0.1", 0)
            )
            urls[name] = await stack.enter_async_context(opening)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        house = House(services, urls, session, folder / "journal")
        yield house
        await house.until(lambda: not files_below(uploads))
        await house.until(lambda: not house.leases())
    assert not list(uploads.iterdir())


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def form(data: bytes | None, **fields: Any) -> aiohttp.FormData:
    """A form as the official clients send it: fields first, lists as `name[]`, the file last."""
    made = aiohttp.FormData(default_to_multipart=True)
    for name, value in ({"model": "demo-whisper"} | fields).items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                made.add_field(f"{name}[]" if isinstance(value, list) else name, str(item))
    if data is not None:
        made.add_field("file", io.BytesIO(data), filename="audio.wav", content_type="application/octet-stream")
    return made


async def ask(house: House, data: bytes | None, path: str = PATH, **fields: Any) -> tuple[int, Any]:
    async with house.client.post(house.url + path, data=form(data, **fields)) as response:
        text = await response.text()
        return response.status, json.loads(text) if response.content_type == "application/json" else text


def clip(name: str) -> bytes:
    return (SPEECH / name).read_bytes()


def samples_of(name: str) -> np.ndarray:
    """A clip as 16-bit samples."""
    with wave.open(str(SPEECH / name)) as file:
        assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def repeated(name: str, times: int, gap: float = 1.0) -> np.ndarray:
    """A clip again and again, with silence between."""
    return np.tile(np.concatenate([samples_of(name), np.zeros(int(gap * RATE), np.int16)]), times)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return held.getvalue()


def encoded(samples: np.ndarray, container: str, codec: str, rate: int = RATE, bit_rate: int | None = None) -> bytes:
    """Samples in another format."""
    held = io.BytesIO()
    with av.open(held, "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.time_base = Fraction(1, RATE)
        frame.pts = 0
        fifo = av.AudioResampler(stream.format.name, "mono", rate, frame_size=stream.codec_context.frame_size or 1024)
        for part in [*fifo.resample(frame), *fifo.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return held.getvalue()


def film() -> bytes:
    """A video without sound."""
    held = io.BytesIO()
    with av.open(held, "w", format="mp4") as file:
        stream: Any = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    return held.getvalue()
