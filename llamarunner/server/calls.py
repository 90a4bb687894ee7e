"""From a client's document to the call of a model: the one way for all that speak OpenAI's language."""

from __future__ import annotations

from llamarunner.catalog.entry import NO_PRESET
from llamarunner.dialects import chat
from llamarunner.dialects.ollama import presets
from llamarunner.fleet.launch import Task
from llamarunner.server.record import Record, log_prompt
from llamarunner.server.resolve import resolve
from llamarunner.server.services import View
from llamarunner.server.upstream import Body, Call
from llamarunner.server.wishes import own_manner

TALKS = (  # their bodies have messages
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/apply-template",
)


def call_of(
    view: View, record: Record, path: str, task: Task | None, asked: tuple[bytes | None, dict[str, object]]
) -> Call:
    """Find the model, check what is asked, and make the call of it; the record takes over what is known by then.

    What the model brings along (a system text, options) goes in where the request does not say.

    `path` is the process's; `task` None is answered by any model; `asked` is the document, and its bytes if it is as
    it came. The model gets its name of the catalog, which its answers repeat.
    Raises InvalidRequest that names the field, ModelNotFound or ModelNotLoaded.
    """
    raw, document = asked
    entry, fit = resolve(view, document, task)
    record.model_id = entry.id
    if view.services.settings.logging.prompts:
        log_prompt(record, document)
    if path in TALKS:
        chat.check_messages(document)
    if document.get("model") != entry.id:
        raw, document = None, {**document, "model": entry.id}
    if entry.preset != NO_PRESET:
        raw, document = None, presets.passed_on(path, document, entry.preset)
    body = Body(document, raw, loopback=view.is_local(record.client))
    return Call(entry, fit, path, body, own_manner(view, entry, fit))
