"""Which chats are kept, where, and for how long."""

from __future__ import annotations

from pydantic import Field

from llamarunner.config.model import Frozen
from llamarunner.config.paths import ConfigPath


class ChatSettings(Frozen):
    """Chats that clients go on with by the id of a response."""

    enabled: bool = Field(True, description="Keep chats, unless a request says `store: false`.")
    folder: ConfigPath | None = Field(
        None,
        description="Folder of the file that holds chats; null is the user's data folder. A change takes effect at the "
        "next start.",
    )
    max_mb: int = Field(
        1000, ge=1, le=100_000, description="Largest size of that file, in MB; the chats used least recently make room."
    )
    max_age_days: float = Field(
        30, gt=0, le=3650, description="A chat that nobody went on with for so long is deleted."
    )
