"""Bodies and answers about loading, unloading and downloading."""

from __future__ import annotations

import pytest

from llamarunner.dialects.lmstudio.errors import InvalidType, InvalidValue, MissingParameter, UnrecognizedKeys
from llamarunner.dialects.lmstudio.managing import DownloadRequest, LoadRequest, UnloadRequest, without_nothing
from llamarunner.dialects.lmstudio.strict import validated
from llamarunner.errors import InvalidRequest


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (b'{"model":"a","identifier":"b"}', LoadRequest, UnrecognizedKeys),
        (b'{"model":""}', LoadRequest, InvalidValue),
        (b'{"model":"a","context_length":0}', LoadRequest, InvalidValue),
        (b'{"model":"a","flash_attention":1}', LoadRequest, InvalidType),
        (b'{"model":"a"}', UnloadRequest, UnrecognizedKeys),
        (b"{}", UnloadRequest, MissingParameter),
        (b'{"model":"a","quantization":4}', DownloadRequest, InvalidType),
    ],
)
def test_mistakes_are_found(body: bytes, kind: type[LoadRequest], error: type[InvalidRequest]) -> None:
    with pytest.raises(error):
        validated(kind, body)


def test_what_is_not_said_is_left_to_the_settings() -> None:
    asked = validated(LoadRequest, b'{"model":"a","eval_batch_size":512}')
    assert asked.model_dump(exclude_none=True) == {"model": "a", "eval_batch_size": 512}


def test_answers_have_no_nulls_but_keep_what_is_false_or_nothing() -> None:
    assert without_nothing({"a": None, "b": 0, "c": {"d": None, "e": False}}) == {"b": 0, "c": {"e": False}}
