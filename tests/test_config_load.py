"""Finding, reading and freezing the settings: what wins over what."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llamarunner.config import effective, find, load
from llamarunner.errors import ConfigError

OURS = '{"proxies": {"ollama": {"port": 4321}}}'


def _write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def test_the_first_of_four_places_wins(tmp_path: Path, here: Path, mine: Path) -> None:
    explicit = _write(tmp_path, "one.json", OURS)
    by_variable = _write(tmp_path, "two.json", OURS)
    in_folder = _write(here, "config.yaml", "proxies: {ollama: {port: 4321}}")
    personal = _write(mine, "config.json", OURS)
    environ = {"LLAMARUNNER_CONFIG": str(by_variable)}

    assert find(explicit, environ=environ, folder=here, user_folder=mine).source == explicit
    assert find(environ=environ, folder=here, user_folder=mine).source == by_variable
    assert find(environ={}, folder=here, user_folder=mine).source == in_folder
    assert find(environ={}, folder=tmp_path, user_folder=mine).source == personal
    assert find(environ={}, folder=tmp_path, user_folder=tmp_path).source is None


@pytest.mark.parametrize("names", [("config.json", "config.yaml"), ("config.yaml", "config.yml")])
def test_json_comes_before_yaml(here: Path, mine: Path, names: tuple[str, str]) -> None:
    paths = [_write(here, name, OURS) for name in names]
    assert find(environ={}, folder=here, user_folder=mine).source == paths[0]


@pytest.mark.parametrize("named_by", ["--config", "$LLAMARUNNER_CONFIG"])
def test_a_named_file_must_exist(tmp_path: Path, named_by: str) -> None:
    missing = tmp_path / "missing.json"
    explicit = missing if named_by == "--config" else None
    with pytest.raises(ConfigError) as caught:
        load(explicit, environ={"LLAMARUNNER_CONFIG": str(missing)})
    assert caught.value.problems == (f"{missing}: there is no such file, and {named_by} names it",)


FOREIGN = [
    '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000}',
    '{"$schema": "https://example.com/other.json", "models": {}, "server": {}}',
    '{"server": {"port": 3000}, "database": {"url": "x"}}',
    '{"name": "a web page", // comments\n "server": {}}',
    "[1, 2]",
    "{}",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_the_file_of_another_program_is_passed_over(here: Path, mine: Path, text: str) -> None:
    foreign = _write(here, "config.json", text)
    loaded = load(environ={}, folder=here, user_folder=mine)
    assert (loaded.source, loaded.passed_over) == (None, (foreign,))
    assert loaded.settings.proxies.ollama.port == 11434


def test_our_file_is_found_beside_the_one_of_another_program(here: Path, mine: Path) -> None:
    foreign, ours = _write(here, "config.json", FOREIGN[0]), _write(here, "config.yaml", OURS)
    found = find(environ={}, folder=here, user_folder=mine)
    assert (found.source, found.passed_over) == (ours, (foreign,))


@pytest.mark.parametrize(
    "text",
    ['{"proxies": {', '{"$schema": "config/llamarunner.schema.json" "models": {}}', "supervisor: [", '{"proxies":\0}'],
)
def test_our_own_file_with_a_slip_is_not_passed_over(here: Path, mine: Path, text: str) -> None:
    ours = _write(here, "config.json", text)
    with pytest.raises(ConfigError) as caught:
        load(environ={}, folder=here, user_folder=mine)
    assert caught.value.problems[0].startswith(f"{ours}:")


def test_our_own_file_with_a_wrong_key_is_not_passed_over(here: Path, mine: Path) -> None:
    _write(here, "config.json", '{"$schema": "config/llamarunner.schema.json", "prxies": {}}')
    with pytest.raises(ConfigError, match="prxies"):
        load(environ={}, folder=here, user_folder=mine)


def test_relative_paths_start_at_the_folder_of_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("USERPROFILE", "/home/someone")
    model = {"mmproj": "vision.gguf", "lora": ["style.gguf"], "model_draft": "/abs/draft.gguf"}
    path = _write(here, "c.json", json.dumps({"catalog": {"folders": ["models", "~/more"]}, "defaults": model}))
    settings = load(path, environ={}).settings
    assert settings.catalog.folders == (here / "models", Path("/home/someone/more"))
    assert settings.defaults.mmproj == here / "vision.gguf"
    assert [adapter.path for adapter in settings.defaults.lora or ()] == [here / "style.gguf"]
    assert settings.defaults.model_draft == Path("/abs/draft.gguf")


def test_json_and_yaml_of_the_same_shape_mean_the_same(tmp_path: Path) -> None:
    as_json = '{"defaults": {"flash_attn": "on", "chat_template": "12:30", "rope_freq_base": 1e6}, "models": {"7": {}}}'
    as_yaml = "defaults:\n  flash_attn: on\n  chat_template: 12:30\n  rope_freq_base: 1e6\nmodels: {7: {}}\n"
    one, two = _write(tmp_path, "a.json", as_json), _write(tmp_path, "a.yaml", as_yaml)
    assert load(one, environ={}).settings == load(two, environ={}).settings


def test_an_empty_yaml_file_means_the_defaults(tmp_path: Path) -> None:
    commented = _write(tmp_path, "a.yaml", "# proxies:\n")
    assert load(commented, environ={}).settings == load(environ={}, folder=tmp_path, user_folder=tmp_path).settings


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + OURS.encode())
    assert load(path, environ={}).settings.proxies.ollama.port == 4321


def test_the_effective_settings_hide_secrets_and_load_again(tmp_path: Path) -> None:
    given = {
        "proxies": {"ollama": {"api_keys": ["s3cret"]}},
        "supervisor": {"ttl_seconds": None},
        "defaults": {"ctx_size": 1, "lora": ["/a"]},
        "models": {"x": {"ctx_size": None, "chat_template_kwargs": {"a": None}}},
    }
    settings = load(_write(tmp_path, "a.json", json.dumps(given)), environ={}).settings
    told = effective(settings)
    assert "s3cret" not in json.dumps(told)
    assert told["defaults"] == {"ctx_size": 1, "lora": [{"path": "/a"}]}
    assert told["models"] == {"x": {"ctx_size": None, "chat_template_kwargs": {"a": None}}}
    assert told["supervisor"]["ttl_seconds"] is None
    again = load(_write(tmp_path, "b.json", json.dumps(told)), environ={}).settings
    assert effective(again) == told


def test_a_right_json_file_is_read_without_the_heavy_libraries(tmp_path: Path) -> None:
    path = _write(tmp_path, "c.json", OURS)
    program = (
        "import sys, pathlib; from llamarunner.config import load; load(pathlib.Path(sys.argv[1]));"
        "print(*sorted({'jsonschema', 'yaml', 'platformdirs', 'asyncio', 'aiohttp'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
