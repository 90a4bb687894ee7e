"""How webhooks are delivered, and where they are kept."""

from __future__ import annotations

from pydantic import Field

from llamarunner.config.model import Frozen
from llamarunner.config.paths import ConfigPath

DAY = 86_400


class WebhookSettings(Frozen):
    """Who is told what happens here; clients that may manage models register them."""

    enabled: bool = Field(True, description="Let clients register webhooks, and deliver.")
    state_folder: ConfigPath | None = Field(
        None,
        description="Folder of the file that holds webhooks and what is still to be delivered; null is the system's "
        "place for state. One server alone can use it. A change takes effect at the next start.",
    )
    attempt_seconds: float = Field(15, gt=0, le=300, description="How long an attempt to deliver may take.")
    retry_base_seconds: float = Field(
        5,
        gt=0,
        le=3600,
        description="Pause after a first failed attempt; each is three times as long, up to an hour.",
    )
    retry_seconds: float = Field(
        DAY, ge=0, le=30 * DAY, description="A webhook whose target has failed for so long is disabled."
    )
