"""Anthropic's paths; llama.cpp speaks them itself, so they pass like OpenAI's."""

from __future__ import annotations

from llamarunner.dialects.anthropic import ANTHROPIC
from llamarunner.fleet.launch import Task
from llamarunner.server.openai_api import Ask

PATHS: dict[str, Ask] = {
    "/v1/messages": Ask(Task.GENERATE, streams=True, dialect=ANTHROPIC),
    "/v1/messages/count_tokens": Ask(Task.GENERATE, dialect=ANTHROPIC),
}
