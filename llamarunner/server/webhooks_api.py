"""Webhooks by REST: register, list, test, redeliver, enable and delete. All of it needs the right to manage models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from llamarunner.config.model import Frozen
from llamarunner.config.settings import Globs
from llamarunner.dialects import strict_json
from llamarunner.events import timestamp
from llamarunner.server import body
from llamarunner.server.forwarded import budget_of
from llamarunner.server.services import CLIENT, VIEW, View
from llamarunner.webhooks import Attempt, Summary, Webhooks


class RegisterBody(Frozen):
    """What to tell whom."""

    url: str = Field(
        min_length=1,
        description="Where events are posted.",
        json_schema_extra={"format": "uri", "pattern": "^https?://"},
    )
    events: Globs = Field(min_length=1, max_length=50, description="Names of events, or globs such as model.*.")
    secret: str | None = Field(
        None, description="whsec_ and base64 of 24 to 64 bytes, with which deliveries are signed; null makes one."
    )


class RedeliverBody(Frozen):
    """What to send again."""

    delivery: str | None = Field(None, min_length=1, description="Id of a delivery; null is all that failed.")


@dataclass(frozen=True, slots=True)
class Webhook:
    id: str
    url: str
    events: tuple[str, ...]
    status: Literal["active", "disabled"]
    disabled_reason: str | None
    created_at: str  # UTC, ISO 8601
    pending: int  # deliveries that wait
    failed: int  # deliveries that were given up; they can be sent again
    dropped: int  # deliveries that gave way to newer ones, since too many waited


@dataclass(frozen=True, slots=True)
class WebhookRegistered:
    success: bool
    id: str
    url: str
    events: tuple[str, ...]
    status: Literal["active"]
    created: bool  # false: this URL was registered before, and is changed
    secret: str | None  # shown this once; null where the one from before stays


@dataclass(frozen=True, slots=True)
class WebhookList:
    object: Literal["list"]
    data: list[Webhook]


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    delivery: str  # the message's id, as in the header webhook-id
    event: str
    timestamp: str  # UTC, ISO 8601
    seconds: float
    success: bool
    status_code: int | None  # null: there was no answer
    error: str | None  # why there was none
    response: str  # the first 1000 bytes of the answer's body


@dataclass(frozen=True, slots=True)
class WebhookDetail(Webhook):
    attempts: list[DeliveryAttempt]  # the last ones, the newest first


@dataclass(frozen=True, slots=True)
class WebhookTested:
    success: bool
    attempt: DeliveryAttempt


@dataclass(frozen=True, slots=True)
class WebhookRedelivered:
    success: bool
    redelivered: int  # deliveries that wait again


@dataclass(frozen=True, slots=True)
class WebhookDeleted:
    success: bool
    id: str
    deleted: bool


async def register(request: web.Request) -> web.Response:
    """Register a URL, or change what a known one is told."""
    view, webhooks = _asked(request)
    raw, _ = await body.read_object(request, view.services.settings.server)
    wanted = body.validated(RegisterBody, raw)
    client = request[CLIENT]
    made = await webhooks.register(
        wanted.url, wanted.events, wanted.secret, budget_of(client), loopback=view.is_local(client)
    )
    known = made.endpoint
    return _json(WebhookRegistered(True, known.id, known.url, known.events, "active", made.created, made.secret))


async def list_webhooks(request: web.Request) -> web.Response:
    """List all webhooks."""
    _, webhooks = _asked(request)
    found = [Webhook(**_fields(summary)) for summary in await webhooks.summaries()]
    return _json(WebhookList("list", found))


async def retrieve(request: web.Request) -> web.Response:
    """Describe a webhook, and how the last attempts went."""
    _, webhooks = _asked(request)
    summary, attempts = await webhooks.get(request.match_info["id"])
    return _json(WebhookDetail(**_fields(summary), attempts=list(map(_attempt, attempts))))


async def delete(request: web.Request) -> web.Response:
    """Forget a webhook and what waits for it."""
    _, webhooks = _asked(request)
    await webhooks.delete(request.match_info["id"])
    return _json(WebhookDeleted(True, request.match_info["id"], True))


async def test(request: web.Request) -> web.Response:
    """Send a webhook the event `webhook.test` now; the answer tells how it went."""
    _, webhooks = _asked(request)
    attempt = _attempt(await webhooks.test(request.match_info["id"]))
    return _json(WebhookTested(attempt.success, attempt))


async def redeliver(request: web.Request) -> web.Response:
    """Send again what failed, or one delivery that the body names."""
    view, webhooks = _asked(request)
    wanted = RedeliverBody(delivery=None)
    if request.can_read_body:
        raw, _ = await body.read_object(request, view.services.settings.server)
        wanted = body.validated(RedeliverBody, raw)
    return _json(WebhookRedelivered(True, await webhooks.redeliver(request.match_info["id"], wanted.delivery)))


async def enable(request: web.Request) -> web.Response:
    """Deliver again to a webhook that was disabled."""
    _, webhooks = _asked(request)
    return _json(Webhook(**_fields(await webhooks.enable(request.match_info["id"]))))


ONE = "/v1/webhooks/{id:(?!register$)[^/]+}"
ROUTES = {
    ("POST", "/v1/webhooks/register"): register,
    ("GET", "/v1/webhooks"): list_webhooks,
    ("GET", ONE): retrieve,
    ("DELETE", ONE): delete,
    ("POST", "/v1/webhooks/{id}/test"): test,
    ("POST", "/v1/webhooks/{id}/redeliver"): redeliver,
    ("POST", "/v1/webhooks/{id}/enable"): enable,
}


def _asked(request: web.Request) -> tuple[View, Webhooks]:
    view = request.app[VIEW]
    view.check_management(request[CLIENT])
    return view, view.services.webhooks


def _fields(summary: Summary) -> dict[str, Any]:
    known = summary.endpoint
    return {
        "id": known.id,
        "url": known.url,
        "events": known.events,
        "status": "disabled" if known.disabled else "active",
        "disabled_reason": known.disabled,
        "created_at": timestamp(known.created_at),
        "pending": summary.pending,
        "failed": summary.failed,
        "dropped": known.dropped,
    }


def _attempt(attempt: Attempt) -> DeliveryAttempt:
    return DeliveryAttempt(
        delivery=attempt.message,
        event=attempt.event,
        timestamp=timestamp(attempt.at),
        seconds=round(attempt.seconds, 3),
        success=attempt.status is not None and 200 <= attempt.status < 300,
        status_code=attempt.status,
        error=attempt.error,
        response=attempt.answer,
    )


def _json(value: Any) -> web.Response:
    return web.Response(body=strict_json.dumps(asdict(value)), content_type="application/json")
