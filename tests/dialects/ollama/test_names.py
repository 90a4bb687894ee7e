"""Ollama's names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.dialects.ollama.names import contradicts_itself, is_remote, parse, shown


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("llama3.2", "registry.ollama.ai/library/llama3.2:latest", "llama3.2:latest"),
        ("llama3.2:3b", "registry.ollama.ai/library/llama3.2:3b", "llama3.2:3b"),
        ("user/m", "registry.ollama.ai/user/m:latest", "user/m:latest"),
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
        ("https://example.com/a/b:c", "example.com/a/b:c", "example.com/a/b:c"),
    ],
)
def test_names(text: str, full: str, short: str) -> None:
    name = parse(text)
    assert name is not None
    assert (name.full, name.short) == (full, short)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        ":b",
        "a/b/c/d",
        "../a",
        "a/../b",
        ".a",
        "-a",
        "a b",
        "a:b:c",
        "n.s/a",
        "a" * 81,
        "a\0",
        "ａ",
        "a/",
        "/a",
    ],
)
def test_what_is_no_name(text: str) -> None:
    assert parse(text) is None


@given(st.text(alphabet="ab.:/_-\\%\0é ", max_size=20))
def test_no_name_can_leave_a_folder(text: str) -> None:
    name = parse(text)
    if name is None:
        return
    for part in (name.host, name.namespace, name.model, name.tag):
        assert part
        assert not part.startswith(".")
        assert not set(part) & set("/\\\0 %")


@given(st.text(alphabet="ab.:/_-", max_size=20))
def test_a_name_says_itself(text: str) -> None:
    name = parse(text)
    if name is not None:
        assert parse(name.full) == parse(name.short) == name


def test_ids_are_shown_with_a_tag() -> None:
    assert shown("demo-chat") == "demo-chat:latest"
    assert shown("llama3.2:3b") == "llama3.2:3b"
    assert shown("host:80/a/b") == "host:80/a/b:latest"


@pytest.mark.parametrize(
    ("text", "remote", "contradiction"),
    [
        ("a", False, False),
        ("a:local", False, False),
        ("a:cloud", True, False),
        ("a:7b-cloud", True, False),
        ("a:7b-cloud:local", False, True),
        ("a:local:cloud", True, True),
        ("cloud", False, False),
    ],
)
def test_models_of_ollamas_servers(text: str, remote: bool, contradiction: bool) -> None:
    assert (is_remote(text), contradicts_itself(text)) == (remote, contradiction)
