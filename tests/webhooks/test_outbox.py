"""The SQLite file: what survives, what is bounded, and who may have it."""

from __future__ import annotations

import base64
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from llamarunner.errors import Forbidden, WebhookNotFound
from llamarunner.webhooks import outbox, signing
from llamarunner.webhooks.outbox import HOUSE, Asker, Attempt, Delivery, Endpoint, Message, Outbox
from llamarunner.webhooks.policy import Verdict


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "webhooks.sqlite3"


@pytest.fixture
def box(file: Path) -> Iterator[Outbox]:
    box = Outbox(file)
    yield box
    box.close()


def secret(name: str) -> str:
    return signing.PREFIX + base64.b64encode(name.encode().ljust(24)).decode()


def endpoint(name: str = "a", client: str = "127.0.0.1", events: tuple[str, ...] = ("*",)) -> Endpoint:
    return Endpoint(f"wh_{name}", f"https://{name}.example/", events, secret(name), client, False, time.time())


def add(box: Outbox, *ids: str, event: str = "model.started") -> list[str]:
    told: list[str] = []
    for one in ids:
        told = box.add(Message(one, event, b"body of " + one.encode()))
    return told


def attempt(delivery: Delivery, status: int | None = 200) -> Attempt:
    return Attempt(delivery.message.id, delivery.message.event, time.time(), 0.1, status, None, "answer")


def finish(box: Outbox, endpoint_id: str, verdict: Verdict, reason: str | None = None) -> str:
    """Let the next delivery end in some way; returns its message's id."""
    delivery = box.head(endpoint_id)
    assert delivery
    box.record(delivery, attempt(delivery), verdict, 0, reason)
    return delivery.message.id


def heads(box: Outbox, endpoint_id: str) -> list[str]:
    """Deliver all that waits, and tell in which order it came."""
    ids = []
    while box.head(endpoint_id):
        ids.append(finish(box, endpoint_id, Verdict.DELIVERED))
    return ids


def messages(box: Outbox) -> int:
    return int(box._db.execute("SELECT count(*) FROM messages").fetchone()[0])


def test_the_file_is_its_owners_alone(box: Outbox, file: Path) -> None:
    box.register(endpoint(), keep_secret=True)
    assert {stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_it_survives_and_belongs_to_one_at_a_time(file: Path) -> None:
    first = Outbox(file)
    first.register(endpoint(), keep_secret=True)
    add(first, "1", "2")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Outbox(file)
    add(first, "3")
    first.close()
    second = Outbox(file)
    assert [one.endpoint.url for one in second.endpoints()] == ["https://a.example/"]
    head = second.head("wh_a")
    assert head
    assert (head.message.body, head.endpoint.secret) == (b"body of 1", secret("a"))
    assert heads(second, "wh_a") == ["1", "2", "3"]
    second.close()


def test_every_webhook_gets_what_it_wants_in_order(box: Outbox) -> None:
    box.register(endpoint("a", events=("model.*",)), keep_secret=True)
    box.register(endpoint("b", events=("*.stopped", "server.*")), keep_secret=True)
    assert add(box, "1", event="model.started") == ["wh_a"]
    assert sorted(add(box, "2", event="model.stopped")) == ["wh_a", "wh_b"]
    assert add(box, "3", event="server.started") == ["wh_b"]
    assert add(box, "4", event="transcription.failed") == []
    assert messages(box) == 3
    assert heads(box, "wh_a") == ["1", "2"]
    assert heads(box, "wh_b") == ["2", "3"]


def test_a_known_url_is_changed(box: Outbox) -> None:
    box.register(endpoint(), keep_secret=True)
    finish_with = "It has failed."
    add(box, "1")
    finish(box, "wh_a", Verdict.GIVEN_UP, finish_with)
    assert box.endpoint("wh_a").endpoint.disabled == finish_with
    again = Endpoint("wh_new", "https://a.example/", ("server.*",), secret("other"), "10.0.0.1", True, 0.0)
    changed, created = box.register(again, keep_secret=True)
    assert (changed.id, changed.events, changed.secret, changed.disabled) == ("wh_a", ("server.*",), secret("a"), None)
    assert not created
    assert box.register(again, keep_secret=False)[0].secret == secret("other")
    assert len(box.endpoints()) == 1


def test_a_disabled_webhook_gets_nothing_until_it_is_enabled(box: Outbox) -> None:
    box.register(endpoint(), keep_secret=True)
    add(box, "1", "2")
    finish(box, "wh_a", Verdict.GONE, "gone")
    assert add(box, "3") == []
    assert box.head("wh_a") is None
    assert box.enable("wh_a").endpoint.disabled is None
    assert heads(box, "wh_a") == ["2"]


def test_what_failed_can_be_delivered_again_with_the_same_body(box: Outbox) -> None:
    box.register(endpoint(), keep_secret=True)
    add(box, "1", "2", "3")
    finish(box, "wh_a", Verdict.GIVEN_UP)
    finish(box, "wh_a", Verdict.GONE)
    assert heads(box, "wh_a") == ["3"]
    assert (box.endpoint("wh_a").failed, box.redeliver("wh_a", None)) == (2, 2)
    head = box.head("wh_a")
    assert head
    assert (head.message.id, head.message.body, head.failures, head.waited) == ("1", b"body of 1", 0, 0)
    assert heads(box, "wh_a") == ["1", "2"]
    assert box.redeliver("wh_a", None) == 0
    assert box.redeliver("wh_a", "3") == 1
    assert heads(box, "wh_a") == ["3"]
    with pytest.raises(WebhookNotFound):
        box.redeliver("wh_a", "4")


def test_failures_and_waiting_are_summed(box: Outbox) -> None:
    box.register(endpoint(), keep_secret=True)
    add(box, "1")
    for pause in (5.0, 15.0):
        delivery = box.head("wh_a")
        assert delivery
        box.record(delivery, attempt(delivery, 500), Verdict.RETRY, pause, None)
    head = box.head("wh_a")
    assert head
    assert (head.failures, head.waited) == (2, 20)
    assert [one.status for one in box.attempts("wh_a")] == [500, 500]


def test_f64_the_oldest_makes_room(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_PENDING", 3)
    for name in ("a", "b"):
        box.register(endpoint(name), keep_secret=True)
    add(box, "1")
    assert heads(box, "wh_b") == ["1"]
    add(box, "2", "3", "4", "5")
    told = {one.endpoint.id: (one.pending, one.endpoint.dropped) for one in box.endpoints()}
    assert told == {"wh_a": (3, 2), "wh_b": (3, 1)}
    assert heads(box, "wh_a") == ["3", "4", "5"]


def test_what_is_over_is_forgotten_in_time(box: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "KEPT", 2)
    for name in ("a", "b"):
        box.register(endpoint(name), keep_secret=True)
    add(box, "1", "2", "3", "4")
    assert len(heads(box, "wh_a")) == 4
    assert [one.message for one in box.attempts("wh_a")] == ["4", "3"]
    assert messages(box) == 4
    heads(box, "wh_b")
    assert messages(box) == 2


def test_f65_there_are_only_so_many(box: Outbox) -> None:
    for number in range(100):
        if number and number % 10 == 0:
            with pytest.raises(Forbidden, match="your address"):
                box.register(endpoint("more", client=f"10.0.0.{number // 10 - 1}"), keep_secret=True)
        box.register(endpoint(str(number), client=f"10.0.0.{number // 10}"), keep_secret=True)
    with pytest.raises(Forbidden, match="100"):
        box.register(endpoint("more", client="10.9.9.9"), keep_secret=True)
    box.register(endpoint("5"), keep_secret=True)
    assert len(box.endpoints()) == 100


def test_deleting_leaves_nothing(box: Outbox) -> None:
    box.register(endpoint(), keep_secret=True)
    add(box, "1", "2")
    delivery = box.head("wh_a")
    assert delivery
    finish(box, "wh_a", Verdict.DELIVERED)
    box.delete("wh_a")
    box.record(delivery, attempt(delivery), Verdict.DELIVERED, 0, None)  # one that was under way
    assert (box.endpoints(), box.attempts("wh_a"), messages(box)) == ([], [], 0)


def test_unknown_ids(box: Outbox) -> None:
    for ask in (box.endpoint, box.delete, box.enable, lambda one: box.redeliver(one, None)):
        with pytest.raises(WebhookNotFound):
            ask("wh_none")
    assert box.head("wh_none") is None


def test_a_full_disk_leaves_all_as_it_was(file: Path) -> None:
    box = Outbox(file)
    box.register(endpoint(), keep_secret=True)
    add(box, "1")
    pages = box._db.execute("PRAGMA page_count").fetchone()[0]
    box._db.execute(f"PRAGMA max_page_count={pages}").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        box.add(Message("2", "model.started", b"x" * 1_000_000))
    assert heads(box, "wh_a") == ["1"]
    box.close()


def test_who_sees_some_models_only_is_told_of_no_others(box: Outbox) -> None:
    box.register(endpoint("all"), keep_secret=True)
    scope = (("Chat*", "embed"), ("*-small",))
    box.register(replace(endpoint("some"), owner="door key", scope=scope), keep_secret=True)
    for model, told in {"chat-small": True, "chat-big": False, "embed": False, "other-small": False}.items():
        assert ("wh_some" in box.add(Message(model, "model.started", b""), model)) is told, model
    assert box.add(Message("none", "server.stopping", b"")) == ["wh_all", "wh_some"]


def test_who_sees_some_models_only_sees_its_own_webhooks(box: Outbox) -> None:
    mine = replace(endpoint("mine"), owner="door a", scope=(("chat",),))
    box.register(mine, keep_secret=True)
    box.register(endpoint("all"), keep_secret=True)
    owner, other = Asker("door a", (("chat",),)), Asker("door b", (("chat",),))
    for asker, seen in ((owner, ["wh_mine"]), (other, []), (HOUSE, ["wh_mine", "wh_all"])):
        assert [one.endpoint.id for one in box.endpoints(asker)] == seen
        for webhook in ("wh_mine", "wh_all"):
            for ask in (box.endpoint, box.enable, partial(box.redeliver, message=None)):
                if webhook in seen:
                    ask(webhook, asker=asker)
                    continue
                with pytest.raises(WebhookNotFound):
                    ask(webhook, asker=asker)
    for asker in (owner, other):
        with pytest.raises(WebhookNotFound):
            box.delete("wh_all", asker)
        theirs = replace(endpoint("all"), owner=asker.name, scope=asker.scope)
        with pytest.raises(Forbidden, match="Somebody else"):
            box.register(theirs, keep_secret=True)
    assert box.register(replace(mine, events=("x",)), keep_secret=True)[0].events == ("x",)
    taken, created = box.register(replace(mine, owner="door", scope=()), keep_secret=True)
    assert (taken.owner, taken.scope, created) == ("door", (), False)
    with pytest.raises(WebhookNotFound):
        box.endpoint("wh_mine", owner)


def test_a_file_of_the_version_before_is_taken_over(file: Path) -> None:
    box = Outbox(file)
    box.register(endpoint(), keep_secret=True)
    box._db.executescript(
        "ALTER TABLE endpoints DROP COLUMN owner; ALTER TABLE endpoints DROP COLUMN scope; PRAGMA user_version=1"
    )
    box.close()
    for message in ("1", "2"):
        box = Outbox(file)
        assert box.endpoint("wh_a").endpoint.scope == ()
        assert add(box, message) == ["wh_a"]
        box.close()
