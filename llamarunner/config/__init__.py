"""Settings: the owner's one file, read once into frozen objects."""

from llamarunner.config.audio import AudioSettings, SpeechSettings
from llamarunner.config.chats import ChatSettings
from llamarunner.config.connections import ConnectionSettings
from llamarunner.config.load import Found, Loaded, bundled, effective, find, load
from llamarunner.config.logs import LogFormat, LoggingSettings
from llamarunner.config.mcp import McpSettings
from llamarunner.config.model import LIFE, LoraAdapter, ModelSettings, RuntimeKind
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
    WrapperDoor,
)
from llamarunner.config.webhooks import WebhookSettings
from llamarunner.config.wrapper import WrapperSettings

__all__ = [
    "LIFE",
    "NO_LIMITS",
    "ApiKey",
    "AudioSettings",
    "CatalogSettings",
    "ChatSettings",
    "ConnectionSettings",
    "Discover",
    "Door",
    "Found",
    "Globs",
    "LMStudioDoor",
    "Loaded",
    "LogFormat",
    "LoggingSettings",
    "LoraAdapter",
    "McpSettings",
    "ModelSettings",
    "OllamaDoor",
    "OutboundSettings",
    "Proxies",
    "RateLimits",
    "RuntimeKind",
    "RuntimeSettings",
    "ServerSettings",
    "Settings",
    "SpeechSettings",
    "SupervisorSettings",
    "WebhookSettings",
    "WrapperDoor",
    "WrapperSettings",
    "bundled",
    "effective",
    "find",
    "load",
    "schema",
    "schema_text",
]
