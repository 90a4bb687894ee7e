"""Every mistake in a settings file is told at once, with its line, its path, its value, and what is allowed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llamarunner.config import load
from llamarunner.errors import ConfigError


def _problems(folder: Path, document: Any, name: str = "c.json") -> list[str]:
    """Load a document that is wrong, and return its problems without the file's name and line."""
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    return [re.sub(f"^{re.escape(str(path))}(:[0-9]+)*: ", "", problem) for problem in caught.value.problems]


WRONG_YAML = """\
proxies:
  ollama:
    prot: 11434
    port: 99999
    api_keys: sk-secret
    enabled: on
  lmstudio: {rate_limits: {requests_per_min: 3}}
ctx-size: 5
defaults:
  ngl: 4
  n_gpu_layers: alll
  lora: [{pat: x, scale: 1000}, 4, ok]
  extra_args: [--rpc, 5, "--api-key=sk-secret", -c]
  mmproj: ~nobody-of-this-name/x
models: []
catalog:
  aliases: {a: B, b: a, "": x}
supervisor: {ttl_seconds: .nan, preload: [a, b, c, d]}
supervisor: {ttl_seconds: .nan, preload: [a, b, c, d]}
"""
WRONG_LINES = """\
3: $.proxies.ollama.prot is not a known key; did you mean "port"?
4: $.proxies.ollama.port is 99999; allowed: an integer from 0 to 65535
5: $.proxies.ollama.api_keys is a hidden value; allowed: a list, each item a non-empty string or an object
6: $.proxies.ollama.enabled is "on"; allowed: true or false
7: $.proxies.lmstudio.rate_limits.requests_per_min is not a known key; did you mean "requests_per_minute"?
8: $.ctx-size is not a known key; it belongs at $.defaults.ctx_size
10: $.defaults.ngl is not a known key; did you mean "n_gpu_layers"?
11: $.defaults.n_gpu_layers is "alll"; allowed: an integer from 0 to 10000 or "auto" or "all" or null
12: $.defaults.lora[0].pat is not a known key; did you mean "path"?
12: $.defaults.lora[0].path is missing; allowed: a non-empty string
12: $.defaults.lora[0].scale is 1000; allowed: a number from -100 to 100
12: $.defaults.lora[1] is 4; allowed: a non-empty string or an object
13: $.defaults.extra_args[0] is not allowed: --rpc is reserved: it opens this machine to clients
13: $.defaults.extra_args[1] is 5; allowed: a non-empty string
13: $.defaults.extra_args[2] is not allowed: --api-key is reserved: LlamaRunner sets it itself
13: $.defaults.extra_args[3] is not allowed: -c has a setting of its own: "ctx_size"
14: $.defaults.mmproj is not allowed: the home folder of ~nobody-of-this-name is not known
15: $.models is an empty list; allowed: an object
17: $.catalog.aliases.a leads back to itself; an alias must end at a model
17: $.catalog.aliases.b leads back to itself; an alias must end at a model
17: $.catalog.aliases[""] has a name that is not allowed; allowed: a non-empty string of at most 512 characters
19: $.supervisor stands twice in the same object
19: $.supervisor.ttl_seconds is not a finite number
"""


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG_YAML)
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    told = sorted(line.removeprefix(f"{path}:") for line in caught.value.problems)
    assert told == sorted(WRONG_LINES.splitlines())


def test_mistakes_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG_YAML)
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    lines = [int(line.removeprefix(f"{path}:").split(":")[0]) for line in caught.value.problems]
    assert lines == sorted(lines)


@pytest.mark.parametrize("indent", [2, "\t"])
def test_json_has_lines_too(tmp_path: Path, indent: int | str) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"proxies": {"ollama": {"port": "x"}}}, indent=indent))
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert caught.value.problems == (f'{path}:4: $.proxies.ollama.port is "x"; allowed: an integer from 0 to 65535',)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("c.json", '{\n "proxies": {},\n}', ":3:1: not valid JSON: no comma is allowed after the last item"),
        (
            "c.json",
            "{\n  // doors\n}",
            ":2:3: not valid JSON: JSON has no comments; a .yaml file of the same shape may have them",
        ),
        ("c.json", "{'proxies': {}}", ":1:2: not valid JSON: text needs double quotes"),
        ("c.json", '{"a": 1 "b": 2}', ":1:9: not valid JSON: Expecting ',' delimiter"),
        ("c.json", "", ":1:1: not valid JSON: Expecting value"),
        ("c.json", '{"a": ' + "9" * 5000 + "}", ": not valid JSON: a number has too many digits"),
        ("c.json", "[" * 100_000, ": nested too deeply; 32 levels are allowed"),
        ("c.json", "[" * 40 + "]" * 40, ": nested too deeply; 32 levels are allowed"),
        ("c.yaml", "proxies:\n  ollama: [\n", ":3:1: not valid YAML: "),
        ("c.yaml", "a: &x 1\nb: *x\n", ":1:4: not valid YAML: anchors and aliases are not supported"),
        (
            "c.yaml",
            "a: !!python/name:os.system x\n",
            ":1:4: not valid YAML: the tag tag:yaml.org,2002:python/name:os.system ",
        ),
        ("c.yaml", "a: !!set {b}\n", ":1:4: not valid YAML: the tag tag:yaml.org,2002:set is not supported"),
        ("c.yaml", "? [a]\n: b\n", ":1:3: not valid YAML: a key must be plain text"),
        ("c.yaml", "a: !!int two\n", ":1:4: not valid YAML: this is not a number, or a very long one"),
        ("c.yaml", "a: 1\n---\nb: 2\n", ":2:1: not valid YAML: "),
        ("c.yaml", "a: 1\nb: \x07\n", ":2: not valid YAML: special characters are not allowed"),
        ("c.yaml", "[" * 5000, ": nested too deeply; 32 levels are allowed"),
    ],
)
def test_a_malformed_file_is_told_with_line_and_column(tmp_path: Path, name: str, text: str, problem: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{path}{problem}")


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b'{\n"a": "\xff"}')
    with pytest.raises(ConfigError, match=r"c\.json:2: not UTF-8 text \(byte 0xff\)$"):
        load(path, environ={})


def test_a_file_that_is_too_large_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 4194304 bytes"):
        load(path, environ={})


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, environ={})


def test_a_repeated_key_is_told_with_its_path(tmp_path: Path) -> None:
    text = '{"proxies": {"ollama": {"port": 1,\n "port": 2}}, "models": {"a": {}, "a": {}}}'
    assert _problems(tmp_path, text) == [
        "$.proxies.ollama.port stands twice in the same object",
        "$.models.a stands twice in the same object",
    ]


@pytest.mark.parametrize(
    ("text", "shown"), [("[]", "an empty list"), ('"x"', '"x"'), ("3", "3"), ("null", "null"), ("true", "true")]
)
def test_a_document_that_is_no_object_is_told(tmp_path: Path, text: str, shown: str) -> None:
    assert _problems(tmp_path, text) == [f"$ is {shown}; allowed: an object"]


@pytest.mark.parametrize("text", ["\0", "a\ud800b"])
def test_a_character_that_no_setting_may_have_is_told(tmp_path: Path, text: str) -> None:
    problem = "has a character that no setting may have: NUL, or half a surrogate pair"
    assert _problems(tmp_path, {"models": {"m": {"chat_template": text}}}) == [f"$.models.m.chat_template {problem}"]
    assert _problems(tmp_path, {"models": {f"m{text}": {}}})[0].endswith(problem)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_must_be_finite(tmp_path: Path, number: str) -> None:
    text = f'{{"defaults": {{"chat_template_kwargs": {{"a": [{number}]}}}}}}'
    assert _problems(tmp_path, text) == ["$.defaults.chat_template_kwargs.a[0] is not a finite number"]


@pytest.mark.parametrize(
    ("ollama", "lmstudio", "collide"),
    [
        ({"port": 5}, {"port": 5}, True),
        ({"port": 5, "host": "0.0.0.0"}, {"port": 5}, True),
        ({"port": 5, "host": "localhost"}, {"port": 5}, True),
        ({"port": 1234}, {}, True),
        ({"port": 5, "host": "10.0.0.1"}, {"port": 5}, False),
        ({"port": 5}, {"port": 5, "enabled": False}, False),
        ({"port": 0}, {"port": 0}, False),
    ],
)
def test_two_doors_need_two_addresses(
    tmp_path: Path, ollama: dict[str, Any], lmstudio: dict[str, Any], collide: bool
) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"proxies": {"ollama": ollama, "lmstudio": lmstudio}}))
    if not collide:
        assert load(path, environ={}).settings.proxies.ollama.port == ollama["port"]
        return
    port = ollama["port"]
    assert _problems(tmp_path, path.read_text()) == [
        f"$.proxies.lmstudio.port is {port}, which another door takes too; each door needs its own host and port"
    ]


def test_the_third_door_needs_its_own_address_too(tmp_path: Path) -> None:
    wrapper = {"enabled": True, "port": 1234}
    assert _problems(tmp_path, json.dumps({"proxies": {"wrapper": wrapper}})) == [
        "$.proxies.wrapper.port is 1234, which another door takes too; each door needs its own host and port"
    ]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (
            {"proxies": {"ollama": {"enabled": False}, "lmstudio": {"enabled": False}}},
            "$.proxies opens no door; enable at least one",
        ),
        (
            {"catalog": {"aliases": {"GPT": "gpt"}}},
            "$.catalog.aliases.GPT leads back to itself; an alias must end at a model",
        ),
        (
            {"supervisor": {"preload": ["a", "b"], "max_loaded_models": 1}},
            "$.supervisor.preload names 2 models, and max_loaded_models is 1",
        ),
        (
            {"runtime": {"kind": "xllamacpp", "binary": "/bin/x"}},
            '$.runtime.binary names a llama-server, and runtime.kind is "xllamacpp"; take "auto" or "llama-server",'
            " or no binary",
        ),
        (
            {"models": {"a b": {"chat_template": "x", "chat_template_file": "y"}}},
            '$.models["a b"].chat_template_file excludes chat_template; give one of them',
        ),
    ],
)
def test_settings_that_exclude_each_other_are_told(tmp_path: Path, document: Any, problem: str) -> None:
    assert _problems(tmp_path, document) == [problem]


def test_an_alias_may_lead_to_another_one(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"catalog": {"aliases": {"a": "b", "b": "c"}}}))
    assert load(path, environ={}).settings.catalog.aliases["a"] == "b"


def test_settings_that_exclude_each_other_are_told_beside_other_mistakes(tmp_path: Path) -> None:
    document = {"catalog": {"aliases": {"a": "a"}, "folders": [""]}, "server": {"max_body_mb": 0.5}}
    assert _problems(tmp_path, document) == [
        "$.catalog.aliases.a leads back to itself; an alias must end at a model",
        '$.catalog.folders[0] is ""; allowed: a non-empty string',
        "$.server.max_body_mb is 0.5; allowed: an integer from 1 to 100000",
    ]


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        ("11435", 'is "11435"; allowed: an integer from 0 to 65535'),
        ("${PORT}", "needs the environment variable PORT, which is not set; ${PORT:-…} gives a default"),
    ],
)
def test_a_mistake_does_not_make_another_one_up(tmp_path: Path, port: str, problem: str) -> None:
    """Without its wrong port the Ollama door would have the default one, which the other door has taken."""
    document = {"proxies": {"ollama": {"port": port}, "lmstudio": {"port": 11434}}}
    assert _problems(tmp_path, document) == [f"$.proxies.ollama.port {problem}"]


def test_a_mistake_in_a_list_does_not_hide_another_one(tmp_path: Path) -> None:
    document = {"defaults": {"extra_args": ["${FLAG}", "--rpc", 5]}}
    assert [problem.split(" ")[0] for problem in _problems(tmp_path, document)] == [
        f"$.defaults.extra_args[{index}]" for index in range(3)
    ]


def test_a_whole_number_may_be_written_with_a_point(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"server": {"max_body_mb": 4.0, "drain_seconds": 1}}')
    assert load(path, environ={}).settings.server.max_body_mb == 4


@pytest.mark.parametrize(
    "secret",
    [
        "sk-secret",
        ["sk-secret", ""],
        [["sk-secret"]],
        {"a": "sk-secret"},
        [{"key": ["sk-secret"]}],
        [{"key": "sk-secret", "models": "sk-secret"}],
    ],
)
def test_a_secret_is_never_in_a_problem(tmp_path: Path, secret: Any) -> None:
    told = _problems(tmp_path, {"proxies": {"ollama": {"api_keys": secret, "api_key": "sk-secret"}}})
    assert len(told) == 2
    assert "sk-secret" not in "".join(told)


@pytest.mark.parametrize("network", ["300.0.0.0/8", "10.0.0.0/33", "1.2.3", "::g", "::/129", "proxy.lan", ""])
def test_what_is_no_network_is_told(tmp_path: Path, network: str) -> None:
    [told] = _problems(tmp_path, {"proxies": {"ollama": {"trusted_proxies": ["::1", network]}}})
    assert told.startswith("$.proxies.ollama.trusted_proxies[1] is ")


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    assert _problems(tmp_path, {"runtime": {"kind": "x" * 1000}}) == [
        f'$.runtime.kind is "{"x" * 59}…; allowed: "auto" or "llama-server" or "xllamacpp" or "llama-cpp-python"'
    ]


@pytest.mark.parametrize(
    ("document", "advice"),
    [
        ({"supervisor": {"max_models": 1}}, 'did you mean "max_loaded_models"?'),
        ({"proxies": {"ollama": {"api_keys": [{"key": "k", "models_": []}]}}}, 'did you mean "models"?'),
        ({"defaults": {"--ctx-size": 1}}, 'did you mean "ctx_size"?'),
        ({"defaults": {"np": 1}}, 'did you mean "parallel"?'),
        ({"port": 1}, "it belongs at $.proxies.ollama.port or $.proxies.lmstudio.port"),
        ({"runtime": {"zzz": 1}}, "known keys: kind, binary"),
        ({"models": {"a": {"zzz": 1}}}, "48 keys are known here, among them ctx_size, parallel, "),
    ],
)
def test_an_unknown_key_comes_with_advice(tmp_path: Path, document: Any, advice: str) -> None:
    [told] = _problems(tmp_path, document)
    assert f"is not a known key; {advice}" in told
