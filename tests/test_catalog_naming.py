"""Ids are readable, unique, and say no more than they must."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamarunner.catalog.discover import Found
from llamarunner.catalog.entry import Source
from llamarunner.catalog.naming import (
    Name,
    assign_ids,
    name_of,
    publisher_of,
    shard_of,
    slug,
    spellings,
    split_quantization,
)


def found(*parts: str, title: str | None = None) -> Found:
    return Found(Path("/store", *parts), Source.FOLDER, parts, title)


@pytest.mark.parametrize(
    ("stem", "base", "quantization"),
    [
        ("Qwen2.5-7B-Instruct-Q4_K_M", "Qwen2.5-7B-Instruct", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q8_0", "qwen2.5-7b-instruct", "q8_0"),
        ("llama-2-7b-chat.Q5_K_S", "llama-2-7b-chat", "Q5_K_S"),
        ("gpt-oss-20b-mxfp4", "gpt-oss-20b", "mxfp4"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL", "Qwen3-30B-A3B", "UD-Q4_K_XL"),
        ("Model.i1-IQ2_XXS", "Model", "i1-IQ2_XXS"),
        ("gemma-3-4b-it-BF16", "gemma-3-4b-it", "BF16"),
        ("phi-3-fp16", "phi-3", "fp16"),
        ("Q4_K_M", "", "Q4_K_M"),
        ("tiny-q4", "tiny", "q4"),
        ("qwen2.5-7b-instruct", "qwen2.5-7b-instruct", None),
        ("codeqwen-1_5-7b", "codeqwen-1_5-7b", None),
    ],
)
def test_quantization_is_split_from_the_name(stem: str, base: str, quantization: str | None) -> None:
    assert split_quantization(stem) == (base, quantization)


def test_a_name_in_the_library_stays_and_others_make_way() -> None:
    own, library = Name("tiny", None, None, "/own"), Name("tiny", None, None, "/lib", "tiny:latest", fixed=True)
    ids = assign_ids([own, library])
    assert ids == assign_ids([library, own])[::-1]
    assert ids[1] == "tiny"
    assert ids[0].startswith("tiny-")


def test_shards_are_recognised() -> None:
    shard = shard_of("Big-Q8_0-00002-of-00003.gguf")
    assert shard is not None
    assert (shard.stem, shard.number, shard.count) == ("Big-Q8_0", 2, 3)
    assert shard_of("Big-Q8_0.gguf") is None


@pytest.mark.parametrize(
    ("file", "base"),
    [
        (("Qwen2.5-7B-Instruct-Q4_K_M.gguf",), "qwen2.5-7b-instruct"),
        (("Big Model (v2)-Q8_0-00001-of-00002.GGUF",), "big-model-v2"),
        (("microsoft", "BitNet-GGUF", "ggml-model-i2_s.gguf"), "bitnet"),
        (("unsloth", "GLM-4-GGUF", "Q4_K_M", "Q4_K_M.gguf"), "glm-4"),
        (("模型.gguf",), "model"),
    ],
)
def test_the_base_of_an_id_is_the_file_name_or_the_folder_that_says_more(file: tuple[str, ...], base: str) -> None:
    assert name_of(found(*file)).base == base


@pytest.mark.parametrize(
    ("title", "model_id"),
    [
        ("llama3.2:latest", "llama3.2"),
        ("llama3.2:3b", "llama3.2:3b"),
        ("me/Mine:latest", "me/mine"),
        ("hf.co/bartowski/Llama-3.2-GGUF:Q4_K_M", "hf.co/bartowski/llama-3.2-gguf:q4_k_m"),
    ],
)
def test_ollama_models_keep_the_names_that_their_users_know(title: str, model_id: str) -> None:
    assert assign_ids([name_of(found(title=title))]) == [model_id]


def ids_of(*files: str) -> list[str]:
    return assign_ids([name_of(found(*file.split("/")), "q4_k_m") for file in files])


def test_an_id_is_as_short_as_it_can_be() -> None:
    assert ids_of("a-Q4_K_M.gguf", "b-Q8_0.gguf") == ["a", "b"]


def test_quantization_is_added_where_files_differ_by_it() -> None:
    assert ids_of("a-Q4_K_M.gguf", "a-Q8_0.gguf", "b-Q8_0.gguf") == ["a-q4_k_m", "a-q8_0", "b"]


def test_quantization_comes_from_the_header_where_the_name_has_none() -> None:
    assert ids_of("a.gguf", "a-Q8_0.gguf") == ["a-q4_k_m", "a-q8_0"]


def test_publishers_tell_equal_files_apart() -> None:
    assert ids_of("x/r/a-Q8_0.gguf", "y/r/a-Q8_0.gguf", "z/r/b.gguf") == ["x/a", "y/a", "b"]
    assert ids_of("a-Q8_0.gguf", "y/r/a-Q8_0.gguf") == ["a", "y/a"]


def test_only_the_place_tells_copies_apart() -> None:
    first, second = ids_of("one/a-Q8_0.gguf", "two/a-Q8_0.gguf")
    assert first == "a"
    assert re.fullmatch(r"a-[0-9a-f]{8}", second)
    assert ids_of("one/a-Q8_0.gguf", "three/a-Q8_0.gguf", "two/a-Q8_0.gguf")[2] == second


def test_ollamas_name_grows_by_its_tag_where_a_file_has_it() -> None:
    file, blob = Name("mistral", None, None, "/a"), name_of(found(title="mistral:latest"))
    assert assign_ids([file, blob]) == ["mistral", "mistral:latest"]


PARTS = st.lists(st.sampled_from(["a", "b", "Q4_K_M"]), max_size=3)
FILES = st.sampled_from(
    ["a.gguf", "A.gguf", "a-Q4_K_M.gguf", "a-q8_0.gguf", "a-q8_0-00001-of-00002.gguf", "model.gguf"]
)


@given(st.lists(st.builds(lambda parts, file: (*parts, file), PARTS, FILES), unique=True, max_size=12))
def test_ids_are_always_unique_and_clean(files: list[tuple[str, ...]]) -> None:
    ids = assign_ids([name_of(found(*file)) for file in files])
    assert len(set(ids)) == len(files)
    assert all(re.fullmatch(r"[a-z0-9._/-]+", one) for one in ids)


@given(st.text())
def test_a_slug_is_clean_and_final(text: str) -> None:
    assert re.fullmatch(r"([a-z0-9]([a-z0-9._-]*[a-z0-9])?)?", slug(text))
    assert slug(slug(text)) == slug(text)


def test_a_file_answers_to_every_name_that_people_use() -> None:
    one = found("bartowski", "Qwen2.5-7B-Instruct-GGUF", "Qwen2.5-7B-Instruct-Q4_K_M.gguf")
    names = set(spellings(one, name_of(one), "Q4_K_M"))
    assert names >= {
        "qwen2.5-7b-instruct",
        "qwen2.5-7b-instruct-q4_k_m",
        "qwen2.5-7b-instruct:q4_k_m",
        "qwen2.5-7b-instruct@q4_k_m",
        "qwen2.5-7b-instruct-q4_k_m.gguf",
        "bartowski/qwen2.5-7b-instruct",
        "bartowski/qwen2.5-7b-instruct-gguf",
        "bartowski/qwen2.5-7b-instruct-gguf:q4_k_m",
        "bartowski/qwen2.5-7b-instruct-gguf/qwen2.5-7b-instruct-q4_k_m.gguf",
        "qwen2.5-7b-instruct-gguf/qwen2.5-7b-instruct-q4_k_m",
    }
    assert publisher_of(one) == "bartowski"


def test_an_ollama_model_answers_to_its_long_names() -> None:
    one = found(title="llama3.2:3b")
    assert set(spellings(one, name_of(one), None)) == {
        "llama3.2:3b",
        "library/llama3.2:3b",
        "registry.ollama.ai/llama3.2:3b",
        "registry.ollama.ai/library/llama3.2:3b",
    }
