"""Pictures are found by their paths in a text, if they are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamarunner.verbs.pictures import taken


@pytest.mark.parametrize(
    ("text", "left", "names"),
    [
        ("what is ./a.png", "what is", ["a.png"]),
        ("a.png, b.JPEG: which is red?", ", : which is red?", ["a.png", "b.JPEG"]),
        ("compare 'my cat.webp' to \"my cat.webp\".", "compare  to .", ["my cat.webp", "my cat.webp"]),
        (r"and my\ cat.webp", "and", ["my cat.webp"]),
        ("a.png\nsay: don't, it's", "say: don't, it's", ["a.png"]),
        ("gone.png", "gone.png", []),
        ("a.pngs and folder.png and a.txt", "a.pngs and folder.png and a.txt", []),
        ("~nobody-at-all/a.png " + "x" * 5000 + ".png \0.png", None, []),
        ("'" * 20_000 + "\\" * 20_000, None, []),
        ("", "", []),
    ],
    ids=["path", "two", "quoted", "escaped", "apostrophes", "gone", "no pictures", "odd", "long", "nothing"],
)
def test_pictures_are_taken_out_of_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, left: str | None, names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    for name in ("a.png", "b.JPEG", "my cat.webp", "a.txt"):
        (tmp_path / name).touch()
    assert taken(text) == (text if left is None else left, [Path(name) for name in names])
