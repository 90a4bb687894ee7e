"""What becomes of a request on its way to llama.cpp."""

from __future__ import annotations

import math
from base64 import b64encode
from typing import Any

import pytest

from llamarunner.dialects.ollama import asking
from llamarunner.dialects.ollama.errors import WrongOption
from llamarunner.dialects.ollama.options import loading, sampling
from llamarunner.dialects.ollama.requests import ChatRequest, GenerateRequest, Message, read
from llamarunner.dialects.strict_json import dumps

PNG = b64encode(b"\x89PNG\r\n\x1a\n....").decode()
WAV = b64encode(b"RIFF....WAVEfmt ").decode()


def chat(**document: Any) -> Any:
    return asking.chat(read(ChatRequest, dumps({"model": "a", **document})), 1000)


def test_ollamas_defaults_go_along() -> None:
    document = chat(messages=[{"role": "USER", "content": "hello"}])
    assert document["messages"] == [{"role": "user", "content": "hello"}]
    assert document["temperature"] == 0.8
    assert document["top_k"] == 40
    assert document["n_predict"] == 10_000
    assert document["stream"] is True
    assert not {"tools", "response_format", "chat_template_kwargs", "logprobs", "seed"} & document.keys()


def test_options_are_sampled_with() -> None:
    fields = sampling(
        {"temperature": 0, "num_predict": 7.0, "stop": ["a"], "seed": 3, "mirostat": 1, "top_p": None}, 1000
    )
    assert fields["temperature"] == 0
    assert fields["n_predict"] == 7
    assert fields["stop"] == ["a"]
    assert fields["seed"] == 3
    assert fields["top_p"] == 0.9
    assert "mirostat" not in fields


@pytest.mark.parametrize("wanted", [-1, -2, 10_001])
def test_no_answer_is_endless(wanted: int) -> None:
    assert sampling({"num_predict": wanted}, 1000)["n_predict"] == 10_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_ctx": "a"}, 'option "num_ctx" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"stop": "a"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
        ({"seed": True}, 'option "seed" must be of type integer'),
        ({"seed": 10**400}, 'option "seed" must be of type integer'),
        ({"num_ctx": math.nan}, 'option "num_ctx" must be of type integer'),
        ({"temperature": -(10**400)}, 'option "temperature" must be of type float32'),
        ({"temperature": math.inf}, 'option "temperature" must be of type float32'),
    ],
)
def test_options_of_the_wrong_type_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(WrongOption) as refused:
        (sampling(options, 10), loading(options))
    assert refused.value.message == words
    assert refused.value.status == 500


def test_options_that_a_process_is_started_with() -> None:
    options = {"num_ctx": 512.0, "num_gpu": -1, "use_mmap": False, "num_thread": 0, "main_gpu": 0, "temperature": 1}
    assert loading(options) == {"ctx_size": 512, "load_mode": "none", "main_gpu": 0}


def test_formats() -> None:
    assert chat(format="json")["response_format"] == {"type": "json_object"}
    schema = {"type": "object"}
    assert chat(format=schema)["response_format"]["json_schema"]["schema"] == schema
    assert "response_format" not in chat(format="")
    with pytest.raises(WrongOption, match="invalid format") as refused:
        chat(format="xml")
    assert refused.value.message == 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'


def test_thinking() -> None:
    assert chat(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat(think="low")["chat_template_kwargs"] == {"enable_thinking": True, "reasoning_effort": "low"}


def test_calls_and_results_find_each_other() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    given = [
        Message.model_validate({"role": "assistant", "tool_calls": [call, {"function": {"name": "g"}}]}),
        Message(role="tool", content="of g", tool_name="g"),
        Message(role="tool", content="of f"),
        Message(role="tool", content="of nobody", tool_call_id="x"),
    ]
    assistant, of_g, of_f, stray = asking.messages(given)
    first, second = assistant["tool_calls"]  # type: ignore[misc]
    assert first["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert of_g["tool_call_id"] == second["id"] != first["id"]
    assert of_f["tool_call_id"] == first["id"]
    assert stray["tool_call_id"] == "x"


def test_pictures_and_sounds() -> None:
    (said,) = chat(messages=[{"role": "user", "content": "what?", "images": [PNG, WAV]}])["messages"]
    text, image, sound = said["content"]
    assert text == {"type": "text", "text": "what?"}
    assert image["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert sound["input_audio"] == {"data": WAV, "format": "wav"}


def test_generate_puts_the_prompt_into_a_chat() -> None:
    request = read(GenerateRequest, b'{"model": "a", "system": "be brief", "prompt": "hello"}')
    assert asking.generate(request, 10)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]
