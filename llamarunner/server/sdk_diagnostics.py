"""The server's log through LM Studio's sockets."""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.server.sdk_endpoints import Streaming

CHANNELS: Mapping[str, Streaming] = {}
