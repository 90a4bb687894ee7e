"""Extra flags for llama.cpp: which ones are refused, however they are written."""

import re

import pytest

from llamarunner.config.flags import SETTING_OF_FLAG, refuse_reserved
from llamarunner.config.model import ModelSettings

SETTINGS = ModelSettings.model_fields

REFUSED = re.findall(
    r"\S+",
    """
    --rpc --host --port --api-key --api-key-file --tools --agent --mcp-servers-config --mcp-servers-json
    --slot-save-path --media-path --path --ssl-key-file --ssl-cert-file --model -m --alias -a --models-dir
    --models-preset --no-models-autoload --hf-repo --hf-file --hf-token -hf -hft --model-url --docker-repo
    --cors-origins --ui-mcp-proxy --webui-config-file --props --embedding --reranking --help --version --log-disable
    --log-file --fim-qwen-7b-default --gpt-oss-20b-default --embd-gemma-default --video-ffmpeg-dir
""",
)


@pytest.mark.parametrize("flag", REFUSED)
def test_a_reserved_flag_is_refused(flag: str) -> None:
    with pytest.raises(ValueError, match=f"^{flag} is reserved: "):
        refuse_reserved(flag, SETTINGS)


@pytest.mark.parametrize("written", ["--api_key", "--api-key=k", "--api_key=k", " --api-key"])
def test_another_spelling_of_a_reserved_flag_is_refused_without_its_value(written: str) -> None:
    with pytest.raises(ValueError, match=r"^--api-key is reserved: LlamaRunner sets it itself$"):
        refuse_reserved(written, SETTINGS)


@pytest.mark.parametrize(
    ("flag", "setting"),
    [("--ctx-size", "ctx_size"), ("-c", "ctx_size"), ("--no-jinja", "jinja"), ("-fa", "flash_attn")],
)
def test_a_flag_with_a_setting_is_sent_there(flag: str, setting: str) -> None:
    with pytest.raises(ValueError, match=f'^{flag} has a setting of its own: "{setting}"$'):
        refuse_reserved(flag, SETTINGS)


def test_every_short_flag_leads_to_a_setting_that_exists() -> None:
    assert set(SETTING_OF_FLAG.values()) <= set(SETTINGS)


@pytest.mark.parametrize(
    "argument", ["--no-warmup", "--no-agent", "--spec-default", "-ctxcp", "--temp", "0.7", "-1", "models", "a b"]
)
def test_other_flags_and_their_values_pass(argument: str) -> None:
    assert refuse_reserved(argument, SETTINGS) == argument


def test_a_flag_and_its_value_in_one_string_are_told_apart() -> None:
    with pytest.raises(ValueError, match="two elements"):
        refuse_reserved("--temp 0.7", SETTINGS)
