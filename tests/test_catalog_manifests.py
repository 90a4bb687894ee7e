"""Names and digests become paths in one place, and no path leaves the store."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from llamarunner.catalog.manifests import Layout, is_digest, parse_manifest, read_preset
from llamarunner.dialects.ollama import names
from tests.test_catalog_discover import touch

ROOT = Path("/store")
PIECES = [*"aZ09_.:-/\\@%~ \0\n\u2024\uff0e\uff0f", "..", "/..", "%2e", "con", "a" * 300]
DIGEST = "sha256:" + "a" * 64


KNOWN = ["", "..", "a/../../b", "a/..:..", "//a", "a\0b", "．．/a", "a:", DIGEST + "\n", "sha256:" + "\u0661" * 64]
KNOWN += ["sha256:" + "../" * 22, DIGEST.replace(":", "-"), DIGEST.upper(), DIGEST]


def evil(count: int = 10_000) -> list[str]:
    """Texts that are meant to become paths elsewhere, or nearly names and digests; others each time."""
    texts = ["".join(random.choices(PIECES, k=random.randint(0, 9))) for _ in range(count)]
    return KNOWN + texts + [DIGEST[: random.randint(0, 72)] + text for text in texts[: count // 10]]


def lies_in(path: Path, folder: Path, depth: int) -> bool:
    """Whether a path is so deep in a folder, also as those read it who take backslashes for slashes."""
    inner = path.as_posix().replace("\\", "/").removeprefix(folder.as_posix()).split("/")[1:]
    return path.is_relative_to(folder) and len(inner) == depth and not {"", ".", ".."} & set(inner)


def test_s01_a_name_never_leads_out_of_the_store() -> None:
    well_formed = 0
    for text in evil():
        if name := names.parse(text):
            well_formed += 1
            path = Layout(ROOT).manifest((name.host, name.namespace, name.model, name.tag))
            assert lies_in(path, ROOT / "manifests", 4), text
            assert not any(part.startswith(".") for part in path.parts[-4:]), text
    assert well_formed > 100


def test_s01_parts_of_a_name_are_looked_at_again() -> None:
    texts = [*evil(), *"abc" * 5000]
    random.shuffle(texts)
    well_formed = 0
    for start in range(0, len(texts) - 4, 4):
        parts = texts[start : start + 4]
        with suppress(ValueError):
            assert lies_in(Layout(ROOT).manifest(parts), ROOT / "manifests", 4), parts
            well_formed += 1
    assert well_formed > 100
    for parts in ([], ["a"] * 3, ["a"] * 5, [".."] * 4, ["a", "b", "c", "../d"]):
        with pytest.raises(ValueError, match="not the parts"):
            Layout(ROOT).manifest(parts)


def test_s01_a_digest_never_leads_out_of_the_store() -> None:
    well_formed = 0
    for text in evil():
        try:
            path = Layout(ROOT).blob(text)
        except ValueError:
            assert not is_digest(text)
            continue
        well_formed += 1
        assert lies_in(path, ROOT / "blobs", 1), text
        assert path.name == f"sha256-{text[7:]}"
        assert lies_in(Layout(ROOT).shard(text, 1, 2), ROOT / "shards", 2), text
    assert well_formed >= 2


def test_a_link_that_leads_out_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "blobs").symlink_to(tmp_path / "outside")
    layout = Layout(tmp_path / "store")
    with pytest.raises(ValueError, match="leads out"):
        layout.confined(layout.blob("sha256:" + "a" * 64))
    assert layout.confined(layout.manifest(list("abcd"))) == tmp_path / "store/manifests/a/b/c/d"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b"5", b'{"layers": {}}', b"[" * 100_000, b'{"layers": [NaN']
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_manifest(data)


def test_what_is_no_layer_is_passed_over() -> None:
    layers = [None, 5, {}, {"mediaType": 1, "digest": "x"}, {"mediaType": "m", "digest": "d", "size": True}]
    manifest = parse_manifest(json.dumps({"layers": layers, "config": []}).encode())
    assert [(layer.media_type, layer.digest, layer.size) for layer in manifest.layers] == [("m", "d", -1)]
    assert manifest.config is None


def test_what_a_model_brings_along_is_read(tmp_path: Path) -> None:
    layers = []
    texts = {
        "system": b"Be kind.",
        "template": b"{{ .Prompt }}",
        "params": b'{"stop":["a"],"num_ctx":5}',
        "messages": b'[{"role":"user","content":"hi"},7]',
        "license": b"MIT",
    }
    for number, (kind, text) in enumerate(texts.items()):
        digest = f"{number:064x}"
        touch(tmp_path / f"blobs/sha256-{digest}", text)
        layers.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    manifest = parse_manifest(json.dumps({"layers": layers}).encode())
    preset = read_preset(Layout(tmp_path), manifest)
    assert (preset.system, preset.template, preset.license) == ("Be kind.", "{{ .Prompt }}", ("MIT",))
    assert preset.parameters == {"stop": ["a"], "num_ctx": 5}
    assert preset.messages == ({"role": "user", "content": "hi"},)
    for wrong in (b"[" * 100_000, b'{"stop":["\\ud800"]}', b'{"temperature":NaN}'):
        touch(tmp_path / f"blobs/sha256-{2:064x}", wrong)
        assert read_preset(Layout(tmp_path), manifest).parameters == {}
    assert read_preset(Layout(tmp_path / "empty"), manifest).system == ""
