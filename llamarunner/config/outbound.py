"""Where the server itself may connect to, on behalf of those who give it a URL."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from llamarunner.config.model import Frozen


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("it is no address and no network such as 10.0.0.0/8") from None


IpNetwork = Annotated[
    str, Field(pattern=r"^[0-9A-Fa-f]*[.:][0-9A-Fa-f.:]*(/[0-9]{1,3})?$", max_length=64), AfterValidator(_network)
]


class OutboundSettings(Frozen):
    """Where webhooks and remote images may lead; the public internet always, and no redirect is followed."""

    allow_cidrs: tuple[IpNetwork, ...] = Field(
        (),
        description="Private networks that may be reached too, such as 192.168.1.0/24. Never the server's own ports, "
        "nor the metadata services of clouds.",
    )
    fetch_images: bool = Field(
        False, description="Fetch the images that chats name by http or https; else only data URLs are taken."
    )
