"""What the bearers of a key may do beside asking models, as LM Studio's tokens have it."""

from __future__ import annotations

from typing import Literal

Permission = Literal["manage", "plugins"]
Permissions = tuple[Permission, ...]
EVERYTHING: Permissions = ("manage", "plugins")
MEANING = (
    "What its bearers may do besides asking models: manage (load, unload, download and delete models, webhooks, logs) "
    "and plugins (use the MCP servers of the owner's mcp.json); null is all that the door allows."
)
