"""From a client's document to the call of a model: the one way for all that speak OpenAI's language."""

from __future__ import annotations

from llamarunner.catalog import ModelEntry
from llamarunner.catalog.entry import NO_PRESET
from llamarunner.dialects import chat
from llamarunner.dialects.ollama import presets
from llamarunner.fleet.launch import Task
from llamarunner.server.record import Record, log_prompt
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
    view: View, record: Record, path: str, found: tuple[ModelEntry, Task], asked: tuple[bytes | None, dict[str, object]]
) -> Call:
    """Check what is asked of the model that was found, and make the call of it; the record takes over what is known.


    What the model brings along (a system text, options) goes in where the request does not say.

    `path` is the process's; `asked` is the document, and its bytes if it is as it came. The model gets its name of the
    catalog, which its answers repeat. Raises InvalidRequest that names the field.
    """
    raw, document = asked
    entry, task = found
    record.model_id = entry.id
    if view.services.settings.logging.prompts:
        log_prompt(record, document)
    if path in TALKS:
        chat.check_messages(document)
    if document.get("model") != entry.instance_id:
        raw, document = None, {**document, "model": entry.instance_id}
    if entry.preset != NO_PRESET:
        raw, document = None, presets.passed_on(path, document, entry.preset)
    body = Body(document, raw, loopback=view.is_local(record.client))
    return Call(entry, task, path, body, own_manner(view, entry, task))
