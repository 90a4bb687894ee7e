"""The library itself: what callers may ask of it, and the one order in which its files change."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

from yarl import URL

from llamarunner.catalog import Catalog, ModelEntry, Source
from llamarunner.catalog.manifests import Layer, Layout, Manifest, parse_manifest, read_small
from llamarunner.dialects.ollama import names
from llamarunner.dialects.ollama.names import Name
from llamarunner.errors import Forbidden, InvalidRequest, ModelNotFound, ServerError
from llamarunner.library import creation, hub, registry
from llamarunner.library.blobs import Blobs, Free, hashed, hexes, storing, write_whole
from llamarunner.library.creation import Placed, Recipe
from llamarunner.library.digests import Digests
from llamarunner.library.download import Downloads, Part, Patience, Wanted
from llamarunner.library.faults import NotInstalled, PullFailed, StoreFailed
from llamarunner.library.flights import Flights, Line, Tell
from llamarunner.library.jobs import Jobs
from llamarunner.library.registry import Offer
from llamarunner.library.threads import in_thread
from llamarunner.outbound import Outbound

_OWNERS = {
    Source.FOLDER: "is a file in one of your own folders",
    Source.LMSTUDIO: "belongs to LM Studio",
    Source.OLLAMA: "belongs to Ollama",
    Source.HUGGINGFACE: "lies in the Hugging Face cache",
    Source.LLAMA_CPP: "lies in llama.cpp's cache",
    Source.DEMO: "comes with LlamaRunner",
}


def disk_free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def state_file() -> Path:
    """Where digests are kept: a file that may be deleted at any time."""
    import platformdirs

    return platformdirs.user_state_path("llamarunner", appauthor=False) / "digests.json"


class Library:
    """Pulls, creates, copies and deletes models. `async with` it: pulls end where it ends.

    `changed` is called after each change, when the catalog knows of it.
    """

    def __init__(  # noqa: PLR0913
        self,
        catalog: Catalog,
        outbound: Outbound,
        changed: Callable[[], None],
        *,
        state: Path | None = None,
        free: Free = disk_free,
        patience: Patience | None = None,
    ) -> None:
        self._catalog = catalog
        self._changed = changed
        self._free = free
        self._downloads = Downloads(self._trusted, outbound.connector, patience or Patience())
        self._digests = Digests(state or state_file())
        self._group = asyncio.TaskGroup()
        self._flights = Flights(self._group)
        self.jobs = Jobs(self.pull, self._group)
        self._writing = asyncio.Lock()  # one change of the manifests and of what they need at a time
        self._bringing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by digest
        self._held: Counter[str] = Counter()  # digests that a pull needs
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._digests)
        await self._stack.enter_async_context(self._group)
        with suppress(StoreFailed):
            await self._clear(())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.jobs.cancel()
        self._flights.cancel()
        await self._stack.__aexit__(None, None, None)  # what went wrong outside is not for the groups to tell

    # ── what is there ──────────────────────────────────────────────────────────────────────────────────────────────

    def digest(self, entry: ModelEntry) -> str:
        """The digest of a model, 64 hexadecimal digits; never waits (`digests` tells what it is until it is known)."""
        return self._digests.of(entry)

    async def settle_digests(self, entries: Iterable[ModelEntry]) -> None:
        """Let the digests of small models be known, so that they do not change once they have been told."""
        await self._digests.settle(entries)

    async def has_blob(self, digest: str) -> bool:
        """Raises InvalidDigest."""
        return await in_thread(self._blobs.has, digest)

    async def put_blob(self, digest: str, chunks: AsyncIterator[bytes], size: int | None = None) -> bool:
        """Store what a client uploads; return False, and read nothing, if it was there.

        `size` is what the client says that it will send, in bytes. Raises InvalidDigest, DigestMismatch, StoreFailed.
        """
        return await self._blobs.put(digest, chunks, size)

    # ── pull ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def search(self, term: str, limit: int) -> list[str]:
        """Find repositories on Hugging Face, `owner/name`. Raises PullFailed."""
        return await asyncio.to_thread(hub.search, term, limit)

    async def choices(self, repository: str) -> list[hub.Choice]:
        """Tell which models a repository on Hugging Face has. Raises PullFailed."""
        return await asyncio.to_thread(hub.choices, repository)

    async def pull(self, text: str, *, insecure: bool = False) -> AsyncGenerator[Line, None]:
        """Bring a model here; yield Ollama's lines, the last of them success. Close it (`aclosing`) to leave.

        Callers who pull the same model share one pull, which goes on as long as one of them is left. What had come when
        it broke off is where the next one goes on. Raises InvalidRequest at once, PullFailed, StoreFailed.
        """
        name = _parsed(text, "invalid model name")

        async def work(tell: Tell) -> None:
            await self._bring(name, insecure, tell)

        async with aclosing(self._flights.join(name.full.casefold(), work)) as lines:
            async for line in lines:
                yield line

    async def _bring(self, name: Name, insecure: bool, tell: Tell) -> None:
        tell({"status": "pulling manifest"})
        offer = await self._offer(name, insecure)
        with self._holding([wanted.digest for wanted in offer.wanted]):
            await self._bring_blobs(offer.wanted, tell)
            with storing():
                data = offer.manifest.data if offer.manifest else await self._composed(offer.layers)
            tell({"status": "writing manifest"})
            if await self._install(name, data):
                tell({"status": "removing unused layers"})
        tell({"status": "success"})

    async def weigh(self, text: str) -> int:
        """Ask a place how large a model is that it has, in bytes. Raises InvalidRequest, NotOffered, PullFailed."""
        offer = await self._offer(_parsed(text, "invalid model name"), insecure=False)
        return sum(wanted.size for wanted in offer.wanted)

    async def has(self, text: str) -> bool:
        """Tell whether the library has a model of that name. Raises InvalidRequest, StoreFailed."""
        name = _parsed(text, "invalid model name")
        with storing():
            return await in_thread(self._existing, name) is not None

    async def _offer(self, name: Name, insecure: bool) -> Offer:
        if name.host.casefold() in hub.HOSTS:
            return await asyncio.to_thread(hub.find, name)
        if name.host.casefold() == names.HOST:
            return await registry.find(self._downloads, URL(self._catalog.settings.registry), name)
        try:
            base = URL(f"{'http' if insecure else 'https'}://{name.host}")
        except ValueError:  # a port that is none
            raise InvalidRequest("invalid model name", param="model") from None
        return await registry.find(self._downloads, base, name)

    async def _bring_blobs(self, wanted: Sequence[Wanted], tell: Tell) -> None:
        with storing():
            missing = [one for one in wanted if not await in_thread(self._blobs.has, one.digest)]
            await in_thread(self._blobs.require, await in_thread(self._remaining, missing))
            for one in wanted:
                if one not in missing:
                    tell(_pulling(one, one.size))
            for one in missing:
                async with self._lock(one.digest):
                    await self._bring_blob(one, tell)
            tell({"status": "verifying sha256 digest"})
            for one in missing:
                async with self._lock(one.digest):
                    await self._verify(one)

    async def _bring_blob(self, wanted: Wanted, tell: Tell) -> None:
        if not await in_thread(self._blobs.has, wanted.digest):
            part = await in_thread(self._blobs.part, wanted.digest)
            tell(_pulling(wanted, 0))
            await self._downloads.fetch(wanted, part, lambda done: tell(_pulling(wanted, done)))
        tell(_pulling(wanted, wanted.size))

    def _remaining(self, missing: Sequence[Wanted]) -> int:
        return sum(max(0, one.size - Part(self._blobs.part(one.digest)).size) for one in missing)

    async def _verify(self, wanted: Wanted) -> None:
        """Let a file take its place only if it is what it should be."""
        if await in_thread(self._blobs.has, wanted.digest):  # another pull was faster
            return
        part = Part(await in_thread(self._blobs.part, wanted.digest))
        found = f"sha256:{await hashed(part.path)}"
        if found != wanted.digest:
            await in_thread(part.drop)
            raise PullFailed(f"digest mismatch, file must be downloaded again: want {wanted.digest}, got {found}")
        await in_thread(self._blobs.settle, part.path, wanted.digest)
        await in_thread(part.done)

    async def _composed(self, layers: Sequence[Layer]) -> bytes:
        data, _ = await in_thread(creation.configured, layers, self._layout, self._blobs)
        return data

    # ── create, copy, delete ───────────────────────────────────────────────────────────────────────────────────────

    async def create(self, recipe: Recipe) -> AsyncGenerator[Line, None]:
        """Make a model of another, or of uploaded files; yield Ollama's lines, the last of them success.

        A model that is named in `from_` and not here is pulled first. Raises InvalidRequest, PullFailed, StoreFailed.
        """
        name = _parsed(recipe.name, "invalid model name")
        recipe.check()
        base: list[Layer] = []
        if recipe.from_:
            async with aclosing(self._pull_if_absent(recipe.from_)) as lines:
                async for line in lines:
                    yield line
            entry = self._usable(recipe.from_, "from")
            if entry.manifest is None:
                yield {"status": "parsing GGUF"}
            base = list((await self._adopted(entry)).layers)
        if recipe.files or recipe.adapters:
            yield {"status": "parsing GGUF"}
        with storing():
            files = await in_thread(creation.file_layers, recipe, self._blobs)
            taken = {layer.kind for layer in files}
            base = files + [layer for layer in base if layer.kind not in taken]
            placed = await in_thread(creation.with_texts, recipe, base, self._layout, self._blobs)
            data, config = await in_thread(self._configured, placed)
        for one in (*placed, config):
            yield {"status": one.status}
        yield {"status": "writing manifest"}
        await self._install(name, data)
        yield {"status": "success"}

    def _configured(self, placed: Sequence[Placed]) -> tuple[bytes, Placed]:
        return creation.configured([one.layer for one in placed], self._layout, self._blobs)

    async def _pull_if_absent(self, text: str) -> AsyncGenerator[Line, None]:
        try:
            self._catalog.find(text)
        except ModelNotFound:
            async with aclosing(self.pull(text)) as lines:
                async for line in lines:
                    if line != {"status": "success"}:
                        yield line

    def _usable(self, text: str, param: str) -> ModelEntry:
        entry = self._catalog.find(text)
        if entry.error:
            raise InvalidRequest(f"'{text}' cannot be used: {entry.error}", param=param)
        if entry.format != "GGUF":
            other = "give it another name with catalog.aliases"
            raise InvalidRequest(f"'{text}' is a speech model and cannot be copied; {other}", param=param)
        return entry

    async def copy(self, source: str, destination: str) -> None:
        """Give a model another name; its weights are not copied. Raises InvalidRequest, NotInstalled, StoreFailed."""
        old = _parsed(source, f'source "{source[:200]}" is invalid')
        new = _parsed(destination, f'destination "{destination[:200]}" is invalid')
        try:
            entry = self._usable(source, "source")
        except ModelNotFound:
            raise NotInstalled(f'model "{source}" not found', param="source") from None
        if old.full.casefold() != new.full.casefold():
            async with self._borrowed(entry) as manifest:
                await self._install(new, manifest.data)

    async def delete(self, text: str) -> None:
        """Delete a model of the library, and what only it needs. Files of other programs and of the person are refused.

        Raises InvalidRequest, Forbidden, NotInstalled, StoreFailed.
        """
        if not text:
            raise InvalidRequest("model is required", param="model")
        name = _parsed(text, f'name "{text[:200]}" is invalid')
        async with self._writing:
            with storing():
                path = await in_thread(self._existing, name) or self._known_as(text)
                gone = await in_thread(_manifest_of, path)
                try:
                    await in_thread(_remove, path)
                except FileNotFoundError:  # the catalog does not know yet
                    raise NotInstalled(f"model '{text[:200]}' not found", param="model") from None
            await self._clear(gone.blobs if gone else ())
        await self._refresh()

    def _known_as(self, text: str) -> Path:
        """The manifest of a model that is asked for by another of its names."""
        try:
            entry = self._catalog.find(text)
        except ModelNotFound:
            raise NotInstalled(f"model '{text}' not found", param="model") from None
        if entry.source is Source.LIBRARY and entry.manifest:
            return entry.manifest
        raise Forbidden(
            f"'{text}' {_OWNERS.get(entry.source, 'is not ours')}; only models that LlamaRunner has pulled, created or "
            "copied itself can be deleted here",
            param="model",
        )

    @asynccontextmanager
    async def _borrowed(self, entry: ModelEntry) -> AsyncIterator[Manifest]:
        """The manifest of a model, whose blobs stay in the library meanwhile."""
        first = await self._adopted(entry)
        with self._holding([layer.digest for layer in first.blobs]):
            yield await self._adopted(entry)  # again: they may have been cleared away before they were held

    async def _adopted(self, entry: ModelEntry) -> Manifest:
        """The manifest of a model, whose blobs are in the library then, by links.

        Raises StoreFailed, InvalidRequest.
        """
        with storing():
            store = creation.place_of(entry)
            if store and entry.manifest:
                manifest = await in_thread(_manifest_of, entry.manifest)
                if manifest is None:
                    raise StoreFailed("the model's manifest cannot be read")
                if store.root != self._layout.root:
                    await in_thread(creation.borrow, manifest, store, self._blobs)
                return manifest
            files = [(path, "model", stamp) for path, stamp in zip(entry.files, entry.stamps, strict=True)]
            layers = [
                await in_thread(creation.file_layer, path, kind, await self._digests.of_file(path, stamp), self._blobs)
                for path, kind, stamp in files
            ]
            if entry.mmproj:
                digest = await hashed(entry.mmproj)
                layers.append(await in_thread(creation.file_layer, entry.mmproj, "projector", digest, self._blobs))
            return parse_manifest(await self._composed(layers))

    # ── the files ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _layout(self) -> Layout:
        if not (folder := self._catalog.library):
            raise ServerError("There is no folder for the library; set catalog.library in the settings.")
        return Layout(folder)

    @property
    def _blobs(self) -> Blobs:
        return Blobs(self._layout, self._free)

    def _trusted(self) -> set[URL]:
        """The origins that the owner has named, which may be private."""
        return {URL(self._catalog.settings.registry).origin(), hub.endpoint().origin()}

    def _lock(self, digest: str) -> asyncio.Lock:
        return self._bringing.setdefault(digest, asyncio.Lock())

    @contextmanager
    def _holding(self, digests: Sequence[str]) -> Iterator[None]:
        """Keep blobs from being cleared away before a manifest names them."""
        held = Counter(hexes(digests))
        self._held += held
        try:
            yield
        finally:
            self._held -= held

    async def _install(self, name: Name, data: bytes) -> int:
        """Write a manifest; return how many blobs it made useless."""
        async with self._writing:
            with storing():
                replaced = await in_thread(self._write, name, data)
            removed = await self._clear(replaced.blobs if replaced else ())
        await self._refresh()
        return removed

    def _write(self, name: Name, data: bytes) -> Manifest | None:
        """Write a manifest if all that it names is there; return the one in whose place it came."""
        manifest, layout = parse_manifest(data), self._layout
        if not all(self._blobs.has(layer.digest) for layer in manifest.blobs):
            raise StoreFailed("a part of the model was deleted meanwhile; try again")
        path = self._existing(name) or layout.manifest(_parts(name))
        replaced = _manifest_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _lay_out_shards(layout, manifest)
        write_whole(layout.confined(path), data)
        return replaced

    def _existing(self, name: Name) -> Path | None:
        """The manifest of a name, however it is spelled there."""
        wanted = [part.casefold() for part in _parts(name)]
        return next(
            (path for path in self._layout.manifests() if [part.casefold() for part in path.parts[-4:]] == wanted), None
        )

    async def _clear(self, gone: Sequence[Layer]) -> int:
        with storing():
            return await in_thread(self._clear_away, hexes([layer.digest for layer in gone]))

    def _clear_away(self, gone: set[str]) -> int:
        """Delete the blobs that no manifest names; none at all when one cannot be read."""
        keep = set(self._held)
        for path in self._layout.manifests():
            if (manifest := _manifest_of(path)) is None:
                return 0
            keep |= hexes([layer.digest for layer in manifest.blobs])
        for folder in sorted(self._layout.shards.glob("*")):
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
        return self._blobs.clear(keep, gone)

    async def _refresh(self) -> None:
        await in_thread(self._catalog.scan)
        self._changed()


def _parsed(text: str, refusal: str) -> Name:
    name = names.parse(text)
    if name is None:
        raise InvalidRequest(refusal, param="model")
    return name


def _parts(name: Name) -> tuple[str, str, str, str]:
    return name.host, name.namespace, name.model, name.tag


def _pulling(wanted: Wanted, done: int) -> Line:
    line: Line = {"status": f"pulling {wanted.digest[7:19]}", "digest": wanted.digest, "total": wanted.size}
    return line | {"completed": done} if done else line


def _manifest_of(path: Path) -> Manifest | None:
    try:
        return parse_manifest(read_small(path))
    except ValueError:
        return None


def _remove(path: Path) -> None:
    """Delete a manifest, and the folders that it leaves empty."""
    path.unlink()
    with suppress(OSError):
        for folder in path.parents[:3]:
            folder.rmdir()


def _lay_out_shards(layout: Layout, manifest: Manifest) -> None:
    """Give the files of a model of several the names by which llama.cpp finds them."""
    models = manifest.of_kind("model")
    if len(models) < 2:
        return
    for number, layer in enumerate(models, start=1):
        link = layout.shard(models[0].digest, number, len(models))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        target = layout.blob(layer.digest).resolve(strict=True)
        try:
            link.hardlink_to(target)
        except OSError:
            link.symlink_to(target)
