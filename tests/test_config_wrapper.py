"""Where the wrapper API leads: the setting, and the environment's name for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamarunner.config import WrapperSettings, load
from llamarunner.errors import ConfigError


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, None),
        ("host.docker.internal:1234", "http://host.docker.internal:1234"),
        ("10.0.0.5", "http://10.0.0.5:1234"),
        ("[::1]", "http://[::1]:1234"),
        ("[::1]:99", "http://[::1]:99"),
        ("http://box:5/", "http://box:5"),
        ("https://lm.example.com", "https://lm.example.com"),
    ],
)
def test_an_address_is_a_host_and_a_port(host: str | None, url: str | None) -> None:
    assert WrapperSettings(lmstudio_host=host).base_url == url


@pytest.mark.parametrize("host", ["", "a b", "user@host:1", "host:port", "host:1/path", "ftp://host:1"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="lmstudio_host"):
        WrapperSettings(lmstudio_host=host)


def test_the_environment_says_where_lm_studio_is(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"wrapper": {"lmstudio_host": "of-the-file:1"}}))

    def found(**environ: str) -> str | None:
        return load(file, environ=environ).settings.wrapper.lmstudio_host

    ours = "LLAMARUNNER__WRAPPER__LMSTUDIO_HOST"
    assert found() == found(LMSTUDIO_HOST="") == "of-the-file:1"
    assert found(LMSTUDIO_HOST="theirs:2") == "theirs:2"
    assert found(LMSTUDIO_HOST="theirs:2", **{ours: "ours:3"}) == "ours:3"
    with pytest.raises(ConfigError, match=r"^LMSTUDIO_HOST: \$\.wrapper\.lmstudio_host"):
        found(LMSTUDIO_HOST="no address")
