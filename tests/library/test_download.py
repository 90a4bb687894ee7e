"""Where redirects may lead, as far as their texts tell; the servers are in `test_pull` and `test_hub`."""

from __future__ import annotations

import pytest
from yarl import URL

from llamarunner.library import PullFailed
from llamarunner.library.download import LONGEST_URL, redirected


@pytest.mark.parametrize(
    ("start", "location", "target"),
    [
        ("https://a.example/v2/x", "/blobs/y", "https://a.example/blobs/y"),
        ("https://a.example/v2/x", "y?z=1", "https://a.example/v2/y?z=1"),
        ("https://a.example/v2/x", "//b.example/y", "https://b.example/y"),
        ("http://a.example/x", "https://b.example/y?Signature=a%2Fb%3D~-_&K=%20", None),
        ("http://a.example/x", "http://b.example/" + "a" * 5000, None),
    ],
)
def test_a_redirect_is_followed_to_the_letter(start: str, location: str, target: str | None) -> None:
    assert str(redirected(URL(start), location)) == (target or location)


@pytest.mark.parametrize(
    "location",
    [
        "http://a.example/x",
        "ftp://a.example/x",
        "file:///etc/passwd",
        "https://user@a.example/",
        "https://a.example/ x",
        "https://a.example\\@b.example/",
        "https://[::1",
        "https://a.example:99999/",
        "https://a.example/" + "a" * LONGEST_URL,
    ],
)
def test_a_redirect_that_cannot_be_meant_is_refused(location: str) -> None:
    with pytest.raises(PullFailed):
        redirected(URL("https://a.example/v2/x"), location)
