"""Webhooks against real targets that are down, silent, endless or wrong; restarts; an outbox that cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from llamarunner.config import OutboundSettings, WebhookSettings
from llamarunner.errors import Forbidden, InvalidRequest, ServiceUnavailable, WebhookNotFound
from llamarunner.events import Bus, ModelFailed, ModelStarted, ModelStopped, RequestFinished, ServerStopping
from llamarunner.outbound import Outbound, SystemResolver
from llamarunner.webhooks import Attempt, Summary, Webhooks, room
from tests.conftest import eventually
from tests.test_outbound import Zone, name_server
from tests.webhooks.target import Target, drip, endless, hang, opened, redirect

QUICK = {"retry_base_seconds": 0.01, "attempt_seconds": 5}


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with opened() as target:
        yield target


@asynccontextmanager
async def running(
    folder: Path,
    bus: Bus | None = None,
    own_ports: Collection[int] = (),
    resolver: AbstractResolver | None = None,
    **settings: Any,
) -> AsyncIterator[Webhooks]:
    wanted = WebhookSettings(state_folder=folder / "state", **{**QUICK, **settings})
    outbound = Outbound(OutboundSettings(), lambda: own_ports, resolver or SystemResolver())
    async with Webhooks(wanted, outbound, bus or Bus()) as webhooks:
        yield webhooks


async def register(webhooks: Webhooks, url: str, *events: str, secret: str | None = None) -> tuple[str, str | None]:
    """Register a URL of this machine; returns the id and the secret."""
    made = await webhooks.register(url, events or ("*",), secret, "127.0.0.1", loopback=True)
    return made.endpoint.id, made.secret


async def standing(webhooks: Webhooks, webhook: str) -> Summary:
    return (await webhooks.get(webhook))[0]


async def attempts(webhooks: Webhooks, webhook: str, count: int) -> list[Attempt]:
    """Wait until so many attempts are written down; the oldest first."""
    async with asyncio.timeout(10):
        while len(told := (await webhooks.get(webhook))[1]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return told[::-1]


async def taken_in(webhooks: Webhooks) -> None:
    """Wait until all that was published is in the outbox."""
    await eventually(webhooks._mailbox._queue.empty)
    await webhooks._do(lambda _: None)


async def test_events_are_told_signed_and_in_order(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    async with running(tmp_path, bus) as webhooks:
        _, secret = await register(webhooks, target.url, "model.*")
        assert secret
        bus.publish(ModelStarted("qwen", 8080, 1.5))
        bus.publish(RequestFinished("r", "ollama", "127.0.0.1", "GET", "/", 200, 0.1))
        bus.publish(ServerStopping("1"))
        for number in range(20):
            bus.publish(ModelStopped(f"model {number}", "idle"))
        letters = await target.wait(21)
        for letter in letters:
            letter.verify(secret)
    first = letters[0].document
    assert first["id"] == letters[0].id
    assert first["event"] == "model.started"
    assert first["timestamp"].endswith("Z")
    assert (first["data"]["model_id"], first["data"]["port"]) == ("qwen", 8080)
    assert [letter.document["data"]["model_id"] for letter in letters[1:]] == [f"model {n}" for n in range(20)]
    assert len({letter.id for letter in letters}) == 21
    assert letters[0].headers["content-type"] == "application/json"


async def test_f60_a_failing_target_is_tried_until_it_is_well(tmp_path: Path, target: Target) -> None:
    """Down, an error, a redirect, hanging: each a failure; then all comes, in order, under the same id."""
    bus = Bus()
    target.script = [500, 404, redirect, hang, 429]
    async with running(tmp_path, bus, attempt_seconds=0.3) as webhooks:
        webhook, secret = await register(webhooks, target.url)
        assert secret
        bus.publish(ModelStarted("a", 1, 1.0))
        bus.publish(ModelStopped("a", "idle"))
        told = await attempts(webhooks, webhook, 7)
        assert [one.status for one in told] == [500, 404, 302, None, 429, 200, 200]
        assert told[3].error == "There was no answer within 0.3 seconds."
        assert told[0].answer == "status 500"
        assert (await standing(webhooks, webhook)).pending == 0
    letters = target.letters
    assert [letter.event for letter in letters] == ["model.started"] * 6 + ["model.stopped"]
    assert len({(letter.id, letter.body) for letter in letters[:6]}) == 1, "one id has one body"
    assert {letter.path for letter in letters} == {"/hook"}, "redirects are not followed"
    for letter in letters:
        letter.verify(secret)


async def test_f60_a_target_that_is_down_is_told_when_it_is_back(tmp_path: Path) -> None:
    bus = Bus()
    async with opened() as target:
        url, port = target.url, target.port
    async with running(tmp_path, bus) as webhooks:
        webhook, _ = await register(webhooks, url)
        bus.publish(ModelFailed("a", "it died"))
        told = await attempts(webhooks, webhook, 3)
        assert {(one.status, one.error) for one in told} == {
            (None, "The host cannot be reached, or nothing listens there.")
        }
        async with opened(port) as target:
            assert (await target.wait(1))[0].event == "model.failed"


async def test_f60_endless_and_dripping_answers_are_cut(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    target.script = [endless, drip]
    async with running(tmp_path, bus, attempt_seconds=0.5) as webhooks:
        webhook, _ = await register(webhooks, target.url)
        bus.publish(ModelStopped("a", "idle"))
        bus.publish(ModelStopped("b", "idle"))
        big, slow = await attempts(webhooks, webhook, 2)
    assert (big.status, big.answer) == (200, "x" * 1000)
    assert big.seconds < 0.5
    assert (slow.status, slow.seconds < 1) == (200, True)
    assert 0 < len(slow.answer) < 100


async def test_a_hanging_target_holds_up_no_other_and_nobody_who_publishes(tmp_path: Path, target: Target) -> None:
    bus = Bus()

    async def behave(request: web.Request) -> web.StreamResponse:
        return await hang(request) if "slow" in request.path else web.Response()

    target.behaviour = behave
    async with running(tmp_path, bus, attempt_seconds=60) as webhooks:
        for number in range(8):
            await register(webhooks, f"http://127.0.0.1:{target.port}/slow/{number}")
        await register(webhooks, target.url)
        began = time.monotonic()
        for number in range(50):
            bus.publish(ModelStopped(str(number), "idle"))
        assert time.monotonic() - began < 0.1
        await eventually(lambda: len(target.to("/hook")) == 50)
        assert len(target.letters) == 58, "a line waits for the answer before its next delivery"


async def test_f62_410_ends_it_and_it_can_be_enabled_again(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    target.script = [410]
    async with running(tmp_path, bus) as webhooks:
        webhook, _ = await register(webhooks, target.url)
        bus.publish(ModelStopped("a", "idle"))
        await attempts(webhooks, webhook, 1)
        gone = await standing(webhooks, webhook)
        assert "410" in (gone.endpoint.disabled or "")
        assert (gone.failed, gone.pending) == (1, 0)
        bus.publish(ModelStopped("b", "idle"))
        await taken_in(webhooks)
        assert (await webhooks.enable(webhook)).endpoint.disabled is None
        assert await webhooks.redeliver(webhook, None) == 1
        first, again = await target.wait(2)
        assert (again.id, again.body) == (first.id, first.body)
        assert again.headers["webhook-signature"]


async def test_f62_a_webhook_that_fails_for_too_long_is_disabled_and_says_why(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    target.behaviour = 503
    async with running(tmp_path, bus, retry_seconds=0.1) as webhooks:
        webhook, _ = await register(webhooks, target.url)
        bus.publish(ModelStopped("a", "idle"))
        bus.publish(ModelStopped("b", "idle"))
        told = await attempts(webhooks, webhook, 4)
        await asyncio.sleep(0.05)
        now = await standing(webhooks, webhook)
        assert (now.failed, now.pending) == (1, 1), "what waits is kept"
        assert "status 503" in (now.endpoint.disabled or "")
        assert len((await webhooks.get(webhook))[1]) == len(told), "and nothing more is sent"
        target.behaviour = 200
        made = await webhooks.register(target.url, ["model.*"], None, "127.0.0.1", loopback=True)
        assert (made.created, made.secret, made.endpoint.disabled) == (False, None, None)
        assert (await target.wait(len(told) + 1))[-1].document["data"]["model_id"] == "b"


async def test_what_the_target_asks_for_is_waited(tmp_path: Path, target: Target) -> None:
    bus = Bus()

    async def later(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "1"})

    target.script = [later]
    async with running(tmp_path, bus) as webhooks:
        webhook, _ = await register(webhooks, target.url)
        bus.publish(ModelStopped("a", "idle"))
        first, second = await attempts(webhooks, webhook, 2)
        assert second.at - first.at >= 1
        assert second.status == 200


async def test_f63_what_was_not_delivered_is_after_a_restart(tmp_path: Path) -> None:
    """Also what was under way when the server ended, and what happened while it did."""
    bus = Bus()
    async with opened() as target:
        target.behaviour = hang
        async with running(tmp_path, bus) as webhooks:
            webhook, secret = await register(webhooks, target.url)
            assert secret
            bus.publish(ModelStarted("a", 1, 1.0))
            await target.wait(1)
            bus.publish(ServerStopping("1"))
            bus.publish(ModelStopped("a", "shutdown"))
        cut = target.letters[0]
        target.behaviour = 200
        async with running(tmp_path) as webhooks:
            letters = (await target.wait(4))[1:]
            assert (letters[0].id, letters[0].body) == (cut.id, cut.body)
            assert [one.event for one in letters] == ["model.started", "server.stopping", "model.stopped"]
            for letter in letters:
                letter.verify(secret)
            await attempts(webhooks, webhook, 3)
        async with running(tmp_path) as webhooks:
            assert (await standing(webhooks, webhook)).pending == 0
            await webhooks.test(webhook)
        assert len(target.letters) == 5, "what was delivered is not sent again"


async def test_the_last_events_are_delivered_before_the_end_if_the_target_is_well(
    tmp_path: Path, target: Target
) -> None:
    bus = Bus()
    async with running(tmp_path, bus) as webhooks:
        await register(webhooks, target.url)
        bus.publish(ServerStopping("1"))
        bus.publish(ModelStopped("a", "shutdown"))
    assert [letter.event for letter in target.letters] == ["server.stopping", "model.stopped"]


async def test_a_hanging_target_does_not_hold_up_the_end(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CLOSE_SECONDS", 0.2)
    bus = Bus()
    target.behaviour = hang
    async with running(tmp_path, bus, attempt_seconds=60) as webhooks:
        await register(webhooks, target.url)
        bus.publish(ServerStopping("1"))
        await target.wait(1)
        began = time.monotonic()
    assert 0.2 <= time.monotonic() - began < 1


async def test_the_test_event_overtakes_and_is_tried_once(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    async with running(tmp_path, bus, retry_base_seconds=3600) as webhooks:
        target.behaviour = 500
        webhook, secret = await register(webhooks, target.url, "server.*")
        assert secret
        bus.publish(ServerStopping("1"))
        await attempts(webhooks, webhook, 1)
        assert (await webhooks.test(webhook)).status == 500
        target.behaviour = 204
        told = await webhooks.test(webhook)
        assert (told.status, told.event, told.answer) == (204, "webhook.test", "")
        assert (await standing(webhooks, webhook)).pending == 1
        letter = target.letters[-1]
        letter.verify(secret)
        assert (letter.document["event"], letter.document["data"]) == ("webhook.test", {"webhook_id": webhook})
        assert await webhooks.redeliver(webhook, target.letters[0].id) == 1
        assert (await target.wait(4))[-1].id == target.letters[0].id, "by hand it waits no longer"


async def test_own_secrets_are_used(tmp_path: Path, target: Target) -> None:
    own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    async with running(tmp_path) as webhooks:
        webhook, told = await register(webhooks, target.url, secret=own)
        assert told == own
        await webhooks.test(webhook)
        target.letters[0].verify(own)


async def test_f61_targets_inside_are_refused_and_dialled_never(tmp_path: Path, target: Target) -> None:
    async with running(tmp_path) as webhooks:
        for url in (target.url, "http://10.0.0.1/", "http://169.254.169.254/latest/", "file:///etc/passwd", "x"):
            with pytest.raises(InvalidRequest) as caught:
                await webhooks.register(url, ["*"], None, "10.0.0.9", loopback=False)
            assert caught.value.param == "url"
        assert await webhooks.summaries() == []
    async with running(tmp_path, own_ports={target.port}) as webhooks:
        with pytest.raises(InvalidRequest):
            await register(webhooks, target.url)
    bus = Bus()
    async with running(tmp_path, bus) as webhooks:
        await register(webhooks, target.url)
    async with running(tmp_path, bus, own_ports={target.port}) as webhooks:
        known = (await webhooks.summaries())[0].endpoint.id
        bus.publish(ModelStopped("a", "idle"))
        told = await attempts(webhooks, known, 2)
        assert "not public" in (told[0].error or "")
    assert target.letters == []


async def test_s35_a_name_that_leads_inside_later_is_refused_at_every_attempt(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    with name_server(Zone("8.8.8.8", "127.0.0.1")) as resolver:
        async with running(tmp_path, bus, resolver=resolver) as webhooks:
            url = f"http://rebind.example:{target.port}/"
            made = await webhooks.register(url, ["*"], None, "10.0.0.9", loopback=False)
            bus.publish(ModelStopped("a", "idle"))
            told = await attempts(webhooks, made.endpoint.id, 3)
            assert all("not public" in (one.error or "") for one in told)
            assert (await webhooks.test(made.endpoint.id)).status is None
            assert target.letters == []


async def test_a_deleted_webhook_is_told_nothing(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    target.behaviour = hang
    async with running(tmp_path, bus) as webhooks:
        webhook, _ = await register(webhooks, target.url)
        bus.publish(ModelStopped("a", "idle"))
        bus.publish(ModelStopped("b", "idle"))
        await target.wait(1)
        target.behaviour = 200
        await webhooks.delete(webhook)
        with pytest.raises(WebhookNotFound):
            await webhooks.get(webhook)
        bus.publish(ModelStopped("c", "idle"))
    assert len(target.letters) == 1


async def test_a_server_without_webhooks_writes_nothing(tmp_path: Path) -> None:
    bus = Bus()
    async with running(tmp_path, bus) as webhooks:
        bus.publish(ModelStopped("a", "idle"))
        assert await webhooks.summaries() == []
        for ask in (webhooks.get, webhooks.delete, webhooks.enable, webhooks.test):
            with pytest.raises(WebhookNotFound):
                await ask("wh_none")
    assert not (tmp_path / "state").exists()


async def test_two_servers_on_one_folder(tmp_path: Path, target: Target) -> None:
    """The second one says so, and takes over when the first has ended."""
    bus = Bus()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(tmp_path))
        await register(first, target.url)
        async with running(tmp_path, bus) as second:
            with pytest.raises(ServiceUnavailable, match=r"Another LlamaRunner.*state_folder"):
                await second.summaries()
            bus.publish(ModelStopped("a", "idle"))
            await stack.aclose()
            assert len(await second.summaries()) == 1
            bus.publish(ModelStopped("b", "idle"))
            await target.wait(1)
    assert target.letters[-1].document["data"]["model_id"] == "b"


@pytest.mark.parametrize("kind", ["a file in the way", "damaged"])
async def test_an_outbox_that_cannot_be_used_says_what_to_do(tmp_path: Path, target: Target, kind: str) -> None:
    bus = Bus()
    if kind == "damaged":
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "webhooks.sqlite3").write_bytes(b"no database" * 1000)
    else:
        (tmp_path / "state").write_text("")
    async with running(tmp_path, bus) as webhooks:
        bus.publish(ModelStopped("a", "idle"))
        with pytest.raises(ServiceUnavailable) as caught:
            await register(webhooks, target.url)
    assert ("damaged" if kind == "damaged" else "webhooks.state_folder") in caught.value.message
    assert str(tmp_path) not in caught.value.message


async def test_a_full_outbox_breaks_nothing(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    async with running(tmp_path, bus) as webhooks:
        webhook, _ = await register(webhooks, target.url)

        def fill(pages: int) -> None:
            assert webhooks._outbox
            webhooks._outbox._db.execute(f"PRAGMA max_page_count={pages}").fetchall()

        await webhooks._do(lambda _: fill(1))
        bus.publish(ModelFailed("a", "x" * 100_000))
        await taken_in(webhooks)
        await webhooks._do(lambda _: fill(10_000))
        bus.publish(ModelFailed("b", "y" * 100_000))
        await target.wait(1)
        assert target.letters[0].document["data"]["model_id"] == "b"
        assert (await standing(webhooks, webhook)).endpoint.disabled is None


async def test_switched_off_they_refuse_and_tell_nothing(tmp_path: Path, target: Target) -> None:
    bus = Bus()
    async with running(tmp_path, bus) as webhooks:
        await register(webhooks, target.url)
        off = webhooks.settings.model_copy(update={"enabled": False})
        webhooks.configure(off)
        with pytest.raises(Forbidden, match=r"webhooks\.enabled"):
            await webhooks.summaries()
        bus.publish(ModelStopped("a", "idle"))
        await taken_in(webhooks)
        webhooks.configure(off.model_copy(update={"enabled": True}))
        bus.publish(ModelStopped("b", "idle"))
        await target.wait(1)
    assert [one.document["data"]["model_id"] for one in target.letters] == ["b"]


async def test_nothing_is_lost_over_kills_of_the_file(tmp_path: Path, target: Target) -> None:
    """The files as they are at any moment, which is what a killed process leaves, have all that was taken in."""
    bus = Bus()
    target.behaviour = 500
    async with running(tmp_path, bus) as webhooks:
        await register(webhooks, target.url)
        for number in range(30):
            bus.publish(ModelStopped(str(number), "idle"))
        await taken_in(webhooks)
        await target.wait(3)
        (copy := tmp_path / "copy").mkdir()
        for file in (tmp_path / "state").iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    with sqlite3.connect(copy / "webhooks.sqlite3") as db:
        pending = db.execute("SELECT count(*) FROM deliveries WHERE state = 'pending'").fetchone()[0]
    db.close()
    assert pending == 30
