"""A registry and a hub that tests run, which misbehave on request, and a library that asks them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from llamarunner.catalog import Catalog
from llamarunner.config import Settings
from llamarunner.library import Library, Line
from llamarunner.library.download import Patience
from llamarunner.outbound import Outbound
from tests.programs.write_gguf import write_model
from tests.test_catalog_discover import machine

NOWHERE = dict.fromkeys(("ollama", "lmstudio", "huggingface", "llama_cpp"), False)
QUICK = Patience(stall_seconds=5, pause_seconds=0.01)
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def model_bytes(folder: Path, seed: int = 0, size: int = 64, metadata: Mapping[str, Any] | None = None) -> bytes:
    """A GGUF file that looks like a chat model; its weights take `size` * 128 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(seed).random((size, 32)).astype(np.float32)
    path = write_model(folder / f"made-{seed}-{size}.gguf", metadata, tensors={"token_embd.weight": weights})
    data = path.read_bytes()
    path.unlink()
    return data


@dataclass
class Asked:
    """One request that a server got."""

    path: str
    headers: Mapping[str, str]


@dataclass
class FileServer:
    """Serves files by path, as well as its mood allows; the first of `moods` counts for the next request for a file."""

    files: dict[str, bytes] = field(default_factory=dict)
    moods: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    etag: str = '"one"'
    url: str = ""
    waiting: asyncio.Event = field(default_factory=asyncio.Event)  # set while a stalled answer waits
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    left: int = 0  # clients that hung up on such an answer

    def requests(self, part: str) -> list[Asked]:
        return [one for one in self.asked if part in one.path]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(Asked(request.path, dict(request.headers)))
        data = self.files.get(request.path)
        if data is None:
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
        if "/manifests/" in request.path:
            return web.Response(body=data, content_type=MANIFEST)
        return await self._file(request, data, self.moods.pop(0) if self.moods else "well")

    async def _file(self, request: web.Request, data: bytes, mood: str) -> web.StreamResponse:
        kind, _, said = mood.partition(" ")
        if kind == "status":
            return web.Response(status=int(said), headers={"Content-Range": f"bytes */{len(data)}"})
        if kind == "redirect":
            return web.Response(status=307, headers={"Location": said.replace("PATH", request.path)})
        if kind == "lie":
            data = bytes(len(data))
        if kind == "chunked":
            return await self._stream(request, web.StreamResponse(), data + b"more", len(data) + 4)
        if kind == "short":
            return web.Response(body=data[:-1])
        start = 0 if kind == "rangeless" else self._start(request)
        response = web.StreamResponse(status=206 if start else 200, headers={"ETag": self.etag})
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if kind == "elsewhere":
            response.headers["Content-Range"] = f"bytes {start + 1}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        end = (start + len(data)) // 2 if kind in ("cut", "stall", "pause") else len(data)
        return await self._stream(request, response, data[start:end], len(data) - start, kind)

    def _start(self, request: web.Request) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        return int(match[1]) if match and request.headers.get("If-Range", self.etag) == self.etag else 0

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, data: bytes, _: int, kind: str = ""
    ) -> web.StreamResponse:
        await response.prepare(request)
        await response.write(data)
        if kind == "cut":
            assert request.transport
            request.transport.close()
        if kind in ("stall", "pause"):
            self.waiting.set()
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.left += 1
                raise
        if kind == "pause":
            whole = self.files[request.path]
            await response.write(whole[len(data) :])
        return response


class Registry(FileServer):
    """A registry as Ollama's."""

    def offer(self, name: str, *blobs: tuple[str, bytes], manifest: dict[str, Any] | None = None) -> bytes:
        """Offer a model under `namespace/model:tag`; each blob has its kind. Return the manifest."""
        path, _, tag = name.partition(":")
        layers = []
        for kind, data in blobs:
            self.files[f"/v2/{path}/blobs/{digest_of(data)}"] = data
            layers.append(
                {
                    "mediaType": f"application/vnd.ollama.image.{kind}",
                    "digest": digest_of(data),
                    "size": len(data),
                }
            )
        config = json.dumps({"model_format": "gguf", "for": name}).encode()
        self.files[f"/v2/{path}/blobs/{digest_of(config)}"] = config
        told = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest_of(config),
                "size": len(config),
            },
            "layers": layers,
            **(manifest or {}),
        }
        self.files[f"/v2/{path}/manifests/{tag or 'latest'}"] = json.dumps(told).encode()
        return self.files[f"/v2/{path}/manifests/{tag or 'latest'}"]

    def blob_requests(self) -> list[Asked]:
        return self.requests("/blobs/")


@dataclass
class Hub(FileServer):
    """A hub as Hugging Face's."""

    repositories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refusal: tuple[int, dict[str, str]] | None = None

    def offer(self, repository: str, files: Mapping[str, bytes]) -> None:
        told = self.repositories.setdefault(repository, [])
        for path, data in files.items():
            lfs = {"sha256": digest_of(data)[7:], "size": len(data), "pointerSize": 134}
            told.append({"rfilename": path, "size": len(data), "blobId": "0" * 40, "lfs": lfs})
            self.files[f"/{repository}/resolve/{'a' * 40}/{path}"] = data

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith("/api/models"):
            return await super().answer(request)
        self.asked.append(Asked(request.path, dict(request.headers)))
        if request.path == "/api/models" and not self.refusal:
            return web.json_response([{"id": one} for one in self.repositories if self._fits(one, request.query)])
        repository = request.path.removeprefix("/api/models/")
        if self.refusal or repository not in self.repositories:
            status, headers = self.refusal or (404, {"X-Error-Code": "RepoNotFound"})
            return web.json_response({"error": "no"}, status=status, headers=headers)
        told = {"id": repository, "sha": "a" * 40, "siblings": self.repositories[repository], "private": False}
        return web.json_response({**told, "tags": [], "downloads": 0, "likes": 0})

    def _fits(self, repository: str, query: Mapping[str, str]) -> bool:
        return query["filter"] == "gguf" and query.get("search", "").casefold() in repository.casefold()


@asynccontextmanager
async def served(server: FileServer) -> AsyncIterator[None]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        server.go_on.set()
        await runner.cleanup()


@dataclass
class House:
    """A library, and what is around it."""

    library: Library
    catalog: Catalog
    root: Path
    changes: list[tuple[str, ...]]  # the ids of the catalog after each change

    async def pull(self, name: str) -> list[Line]:
        async with aclosing(self.library.pull(name)) as lines:
            return [line async for line in lines]

    def left(self) -> list[str]:
        """What lies in the folder."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir())

    def names(self) -> list[str]:
        return [entry.id for entry in self.catalog.entries]


@asynccontextmanager
async def library(folder: Path, registry: str = "http://127.0.0.1:9", **more: Any) -> AsyncIterator[House]:
    """Open a library in a folder; `catalog` and `outbound` are settings, the rest is for Library itself."""
    root = folder / "library"
    settings = Settings.model_validate(
        {
            "catalog": {"library": str(root), "registry": registry, "discover": NOWHERE, **more.pop("catalog", {})},
            "outbound": more.pop("outbound", {}),
        }
    )
    catalog = Catalog(settings, machine(folder))
    await asyncio.to_thread(catalog.scan)
    changes: list[tuple[str, ...]] = []

    def changed() -> None:
        changes.append(tuple(entry.id for entry in catalog.entries))

    own_ports = more.pop("own_ports", ())
    options = {"state": folder / "digests.json", "patience": QUICK, **more}
    outbound = Outbound(settings.outbound, lambda: own_ports)
    async with Library(catalog, outbound, changed, **options) as opened:
        yield House(opened, catalog, root, changes)
