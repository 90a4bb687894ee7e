"""Signatures, verified by another's implementation of Standard Webhooks."""

from __future__ import annotations

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from llamarunner.webhooks import signing


@given(st.dictionaries(st.text(), st.text()), st.binary(min_size=24, max_size=64))
def test_signatures_are_those_of_the_standard(document: dict[str, str], key: bytes) -> None:
    body = json.dumps(document).encode()
    secret = "whsec_" + base64.b64encode(key).decode()
    headers = signing.headers(secret, "msg_1", int(time.time()), body)
    assert Webhook(secret).verify(body.decode(), headers) == document


def test_a_changed_body_id_or_time_is_told() -> None:
    secret, now, body = signing.new_secret(), int(time.time()), b'{"a":1}'
    headers = signing.headers(secret, "msg_1", now, body)
    Webhook(secret).verify(body.decode(), headers)
    changes = ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(now + 1)})
    for text, told in (("{}", headers), *((body.decode(), headers | change) for change in changes)):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(text, told)
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify(body.decode(), headers)


def test_new_secrets_are_right_and_differ() -> None:
    secrets = {signing.new_secret() for _ in range(10)}
    assert len(secrets) == 10
    assert {len(signing.key_of(secret)) for secret in secrets} == {32}


@pytest.mark.parametrize(
    "secret",
    [
        *("", "secret", "whsec_", "whsec_!!!!", "whsec_ü", base64.b64encode(b"x" * 32).decode()),
        *("whsec_" + base64.b64encode(b"x" * size).decode() for size in (23, 65)),
    ],
)
def test_secrets_that_are_none(secret: str) -> None:
    with pytest.raises(ValueError, match=r"must"):
        signing.key_of(secret)
