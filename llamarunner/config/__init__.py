"""Settings: the owner's one file, read once into frozen objects."""

from llamarunner.config.load import Found, Loaded, bundled, effective, find, load
from llamarunner.config.model import LoraAdapter, ModelSettings, RuntimeKind
from llamarunner.config.outbound import OutboundSettings
from llamarunner.config.schema import schema, schema_text
from llamarunner.config.settings import (
    NO_LIMITS,
    ApiKey,
    CatalogSettings,
    Discover,
    Door,
    Globs,
    LMStudioDoor,
    OllamaDoor,
    Proxies,
    RateLimits,
    RuntimeSettings,
    ServerSettings,
    Settings,
    SupervisorSettings,
)

__all__ = [
    "NO_LIMITS",
    "ApiKey",
    "CatalogSettings",
    "Discover",
    "Door",
    "Found",
    "Globs",
    "LMStudioDoor",
    "Loaded",
    "LoraAdapter",
    "ModelSettings",
    "OllamaDoor",
    "OutboundSettings",
    "Proxies",
    "RateLimits",
    "RuntimeKind",
    "RuntimeSettings",
    "ServerSettings",
    "Settings",
    "SupervisorSettings",
    "bundled",
    "effective",
    "find",
    "load",
    "schema",
    "schema_text",
]
