"""Models to download, through LM Studio's sockets."""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.server.sdk_endpoints import Rpc, Streaming

RPCS: Mapping[str, Rpc] = {}
CHANNELS: Mapping[str, Streaming] = {}
