"""How many connections may be open."""

from __future__ import annotations

from pydantic import Field

from llamarunner.config.model import Frozen


class ConnectionSettings(Frozen):
    """How many connections may be open; more are refused."""

    max_open: int = Field(
        8192,
        ge=1,
        le=1_000_000,
        description="Most connections of all clients and doors together; never more than 80 % of the files that the "
        "system lets the server open.",
    )
    max_per_address: int | None = Field(
        64,
        ge=1,
        le=1_000_000,
        description="Most connections of one address, or of one /64 of IPv6; null sets no limit. Programs of this "
        "machine and trusted_proxies have none.",
    )
