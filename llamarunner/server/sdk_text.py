"""Texts through LM Studio's sockets: tokens, embeddings, and a conversation as the model's template writes it.

SDKs send a list of texts as one call for each, all at once: so these are no requests of the minute, and wait for each
other where others would be too many at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamarunner.catalog import ModelEntry
from llamarunner.dialects import chat
from llamarunner.dialects.chat_stream import event_of
from llamarunner.dialects.lmstudio import sdk_config, sdk_history
from llamarunner.dialects.lmstudio.sdk_frames import Sent, checked
from llamarunner.dialects.lmstudio.sdk_infos import Specifier
from llamarunner.dialects.usage import of_answer
from llamarunner.errors import BackendFailed
from llamarunner.fleet.launch import Task
from llamarunner.server.ollama_asked import ask_whole
from llamarunner.server.resolve import native_task
from llamarunner.server.sdk_endpoints import Caller, Rpc
from llamarunner.server.sdk_models import find_loaded
from llamarunner.server.upstream import Body, Call

PATHS = {  # of the model's process, by endpoint
    "tokenize": "/tokenize",
    "countTokens": "/tokenize",
    "embedString": "/v1/embeddings",
    "applyPromptTemplate": "/apply-template",
}


class Text(Sent):
    specifier: Specifier
    input_string: str


class Embed(Sent):
    model_specifier: Specifier
    input_string: str


class Options(Sent):
    tool_definitions: list[Any] | None = None


class Template(Sent):
    specifier: Specifier
    history: Any
    prediction_config_stack: Any
    opts: Options = Options()


async def _tokens(caller: Caller, parameter: object, endpoint: str) -> list[int]:
    asked = checked(Text, parameter)
    wanted = {"content": asked.input_string, "parse_special": True}
    document = await _ask(caller, asked.specifier, endpoint, wanted)
    return _listed(document, "tokens")


async def _tokenize(caller: Caller, parameter: object) -> object:
    return {"tokens": await _tokens(caller, parameter, "tokenize")}


async def _count_tokens(caller: Caller, parameter: object) -> object:
    return {"tokenCount": len(await _tokens(caller, parameter, "countTokens"))}


async def _embed(caller: Caller, parameter: object) -> object:
    asked = checked(Embed, parameter)
    wanted = {"input": asked.input_string, "encoding_format": "float"}
    document = await _ask(caller, asked.model_specifier, "embedString", wanted, Task.EMBED)
    first = (_listed(document, "data") or [{}])[0]
    return {"embedding": _listed(first, "embedding")}


async def _template(caller: Caller, parameter: object) -> object:
    asked = checked(Template, parameter)
    config = sdk_config.flattened(asked.prediction_config_stack)
    system = config.get("llm.prediction.systemPrompt")
    wanted: dict[str, object] = {"messages": sdk_history.messages(asked.history, caller.picture, system)}
    chat.check_messages(wanted)
    if asked.opts.tool_definitions:
        wanted["tools"] = asked.opts.tool_definitions
    document = await _ask(caller, asked.specifier, "applyPromptTemplate", wanted)
    formatted = document.get("prompt")
    if not isinstance(formatted, str):
        raise BackendFailed("The model's process gave no prompt.")
    return {"formatted": formatted}


async def _ask(
    caller: Caller, specifier: Specifier, endpoint: str, wanted: Mapping[str, object], task: Task | None = None
) -> dict[str, Any]:
    """Ask a loaded model, and read all that it says. Raises what it cannot do."""
    entry = (await find_loaded(caller, specifier)).instance.entry
    async with caller.texts:
        return await _told(caller, entry, endpoint, wanted, task or native_task(entry))


async def _told(
    caller: Caller, entry: ModelEntry, endpoint: str, wanted: Mapping[str, object], task: Task
) -> dict[str, Any]:
    with caller.counted(endpoint, of_minute=False) as (record, _):
        record.model_id = entry.id
        body = Body({**wanted, "model": entry.id}, loopback=caller.view.is_local(caller.client))
        call = Call(entry, task, PATHS[endpoint], body)
        said = await ask_whole(caller.view.services, call, record)
        record.used(of_answer(said))
    return event_of(said.decode(errors="replace"))


def _listed(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise BackendFailed(f"The model's process gave no {name}.")
    return value


RPCS: Mapping[str, Rpc] = {"tokenize": _tokenize, "countTokens": _count_tokens}
LLM_RPCS: Mapping[str, Rpc] = {"applyPromptTemplate": _template}
EMBEDDING_RPCS: Mapping[str, Rpc] = {"embedString": _embed}
