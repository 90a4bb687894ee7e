"""What the owner wants: every setting of the program, its default, its unit and its limits, frozen once read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from llamarunner.config.audio import AudioSettings
from llamarunner.config.chats import ChatSettings
from llamarunner.config.connections import ConnectionSettings
from llamarunner.config.logs import LoggingSettings
from llamarunner.config.mcp import McpSettings
from llamarunner.config.model import Frozen, ModelSettings, RuntimeKind, parts_for
from llamarunner.config.outbound import IpNetwork, OutboundSettings
from llamarunner.config.paths import ConfigPath
from llamarunner.config.permissions import MEANING, Permissions
from llamarunner.config.webhooks import WebhookSettings
from llamarunner.config.wrapper import WrapperSettings

DAY = 86_400
Seconds = Annotated[float, Field(gt=0, le=DAY)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=253)]
Origin = Annotated[str, Field(pattern=r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://[^/\s]+)$")]
Globs = tuple[Name, ...]
RegistryUrl = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+/?$", max_length=512)]
Secret = Annotated[SecretStr, Field(min_length=1)]


class RateLimits(Frozen):
    """What each client may ask of a door; null sets no limit."""

    requests_per_minute: int | None = Field(100, ge=1, le=1_000_000, description="Requests in any 60 seconds.")
    concurrent_requests: int | None = Field(10, ge=1, le=100_000, description="Requests at the same time.")
    streaming_connections: int | None = Field(
        5, ge=1, le=100_000, description="Streams at the same time; each is one of the concurrent requests too."
    )
    file_upload_size_mb: int | None = Field(100, ge=1, le=100_000, description="Largest uploaded file, in MB.")
    exempt_loopback: bool = Field(
        False,
        description="Let programs of this machine ask without limits. Behind a reverse proxy that runs here, set "
        "trusted_proxies first: all its clients seem to be of this machine otherwise.",
    )


NO_LIMITS = RateLimits(
    requests_per_minute=None, concurrent_requests=None, streaming_connections=None, file_upload_size_mb=None
)


class ApiKey(Frozen):
    """A key that clients may send, and what its bearers may do."""

    key: Secret = Field(description='The key; write it as "${VARIABLE}".')
    name: Name | None = Field(None, description="Who bears it; keys of one name share their limits.")
    models: Globs = Field(("*",), description="Globs of the model ids that its bearers may see and use.")
    rate_limits: RateLimits | None = Field(
        None, description="Limits for all its bearers together; null counts them by address, as others."
    )
    permissions: Permissions | None = Field(None, description=MEANING)

    @property
    def bearer(self) -> str:
        """What the limits call its bearers: the name, or what tells the key from others."""
        return self.name or hashlib.sha256(self.key.get_secret_value().encode()).hexdigest()[:8]


class Door(Frozen):
    """One HTTP listener."""

    enabled: bool = Field(True, description="Open this door.")
    host: str = Field(
        "127.0.0.1",
        pattern=r"^[A-Za-z0-9._:%-]+$",
        max_length=253,
        description="Address to listen on; 0.0.0.0 or :: lets other machines in.",
    )
    port: int = Field(0, ge=0, le=65_535, description="TCP port; 0 takes any free one.")
    api_keys: tuple[Secret | ApiKey, ...] = Field(
        (),
        description="Keys of which clients must send one; empty accepts everyone. Each is a text, best written as "
        '"${VARIABLE}", or an object with models and limits of its own.',
    )
    cors_origins: tuple[Origin, ...] = Field(
        (), description="Origins whose web pages may call, such as https://app.example.com; * is any."
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        (), description="More names that the Host header may bear, besides localhost and IP addresses."
    )
    allow_management: Literal["auto", "always", "never"] = Field(
        "auto", description="Let clients start and stop models; auto: on loopback, and elsewhere if there are api_keys."
    )
    models: Globs = Field(("*",), description="Globs of the model ids that this door shows.")
    rate_limits: RateLimits = Field(RateLimits(), description="What each client, told by its address, may ask.")
    trusted_proxies: tuple[IpNetwork, ...] = Field(
        (),
        description="Addresses or networks of reverse proxies, whose X-Forwarded-For or Forwarded header is believed.",
    )

    def known_keys(self) -> tuple[ApiKey, ...]:
        """All keys; one that is a text alone may do what the door allows."""
        return tuple(key if isinstance(key, ApiKey) else ApiKey(key=key) for key in self.api_keys)

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and ports to listen on, the door's own first."""
        return ((self.host, self.port),)

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host.casefold() == "localhost":
            return True
        try:
            return ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


class OllamaDoor(Door):
    """The door where Ollama's clients look."""

    port: int = Field(11_434, ge=0, le=65_535, description="TCP port; 0 takes any free one.")


class LMStudioDoor(Door):
    """The door where LM Studio's clients look."""

    port: int = Field(1234, ge=0, le=65_535, description="TCP port; 0 takes any free one.")
    sdk_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="One more port, for this machine alone: 41343 is where LM Studio's SDKs look when nobody tells "
        "them an address. Null opens none.",
    )

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and ports to listen on, the door's own first."""
        return super().addresses + ((("127.0.0.1", self.sdk_port),) if self.sdk_port else ())


class WrapperDoor(Door):
    """The door where clients of the wrapper API look."""

    enabled: bool = Field(False, description="Open this door.")
    port: int = Field(8009, ge=0, le=65_535, description="TCP port; 0 takes any free one.")


class Proxies(Frozen):
    """The doors."""

    ollama: OllamaDoor = Field(OllamaDoor(), description="Speaks as Ollama does, and OpenAI and Anthropic.")
    lmstudio: LMStudioDoor = Field(LMStudioDoor(), description="Speaks as LM Studio does, and OpenAI and Anthropic.")
    wrapper: WrapperDoor = Field(
        WrapperDoor(), description="Has the wrapper API, as LM Studio's door does too, and OpenAI and Anthropic."
    )

    def doors(self) -> Iterator[tuple[str, Door]]:
        """Yield the name and the settings of each door that is to open."""
        doors = (("ollama", self.ollama), ("lmstudio", self.lmstudio), ("wrapper", self.wrapper))
        yield from ((name, door) for name, door in doors if door.enabled)


class Discover(Frozen):
    """Which stores of other programs are read, and never written."""

    ollama: bool = Field(True, description="Ollama's models.")
    lmstudio: bool = Field(True, description="LM Studio's models.")
    huggingface: bool = Field(True, description="The Hugging Face cache.")
    llama_cpp: bool = Field(True, description="llama.cpp's own download cache.")


class CatalogSettings(Frozen):
    """Where models are found and how they are called."""

    folders: tuple[ConfigPath, ...] = Field(
        (), description="Folders searched for GGUF files and speech models, with all that is below."
    )
    discover: Discover = Field(Discover(), description="Models that other programs have stored here.")
    demo_models: Literal["auto", "show", "hide"] = Field(
        "auto",
        description="The small models that come with LlamaRunner; auto shows one while there is no other of its kind "
        "(text, embeddings, reranking, speech).",
    )
    library: ConfigPath | None = Field(
        None,
        description="Where models that are pulled, copied or created are stored; null takes the user's data folder.",
    )
    registry: RegistryUrl = Field("https://registry.ollama.ai", description="Where models are pulled from by name.")
    aliases: Mapping[Name, Name] = Field({}, description="Other names for models: alias to id.")


class RuntimeSettings(Frozen):
    """Which program runs the models."""

    kind: RuntimeKind = Field("auto", description="auto prefers llama-server when it is found, then xllamacpp.")
    binary: ConfigPath | None = Field(None, description="The llama-server program, if not the one on PATH.")


class SupervisorSettings(Frozen):
    """When models are loaded, shared and unloaded."""

    ttl_seconds: float | None = Field(
        3600,
        ge=0,
        le=365 * DAY,
        description="Unload a model that a request has loaded after so many idle seconds; null never.",
    )
    max_loaded_models: int = Field(3, ge=1, le=1000, description="Most models in memory at the same time.")
    queue_length: int = Field(512, ge=1, le=100_000, description="Most requests that wait for models.")
    queue_timeout_seconds: Seconds = Field(600, description="Longest wait of a request for room, loading not counted.")
    load_stall_seconds: Seconds = Field(300, description="A load without any sign of progress for so long has failed.")
    load_timeout_seconds: Seconds = Field(1800, description="Longest load.")
    stop_grace_seconds: Seconds = Field(5, description="From asking a process to end until it is killed.")
    patience_seconds: Seconds = Field(
        10, description="How long a request waits behind a busy model before that model takes no new ones."
    )
    only_last_jit_model: bool = Field(
        False,
        description="Of the models that requests have loaded, keep only the last one; else as many as there is room "
        "for. Those that were loaded by hand stay either way.",
    )
    memory_check: bool = Field(True, description="Refuse, or evict, when a model would not fit into memory.")
    preload: tuple[Name, ...] = Field((), description="Models to load at the start.")


class ServerSettings(Frozen):
    """How the doors treat connections."""

    drain_seconds: float = Field(30, ge=0, le=DAY, description="How long running answers may go on after SIGTERM.")
    max_body_mb: int = Field(100, ge=1, le=100_000, description="Largest request body, in MB.")
    body_idle_seconds: Seconds = Field(30, description="Longest pause while a request body arrives.")
    connections: ConnectionSettings = Field(ConnectionSettings(), description="How many connections may be open.")
    write_stall_seconds: Seconds = Field(30, description="Longest time that a client may read nothing of its answer.")
    first_token_seconds: Seconds = Field(600, description="Longest wait for the first byte of a model's answer.")
    token_seconds: Seconds = Field(120, description="Longest pause between two bytes of a model's answer.")
    sse_keepalive_seconds: float = Field(
        15,
        ge=0,
        le=DAY,
        description="Silence after which a stream sends a comment, so that clients stay; 0 sends none.",
    )


class Settings(Frozen):
    """Settings of LlamaRunner."""

    schema_: str | None = Field(
        None, alias="$schema", exclude=True, description="Where editors find the schema of this file."
    )
    proxies: Proxies = Field(Proxies(), description="The doors that clients come through.")
    catalog: CatalogSettings = Field(CatalogSettings(), description="Where models are found and how they are called.")
    runtime: RuntimeSettings = Field(RuntimeSettings(), description="Which program runs the models.")
    defaults: ModelSettings = Field(
        ModelSettings(), description="How every model is run, unless models says otherwise."
    )
    models: Mapping[Name, ModelSettings] = Field(
        {},
        description="How some models are run, by id or by a glob of ids; the later wins, and an exact id over globs.",
    )
    supervisor: SupervisorSettings = Field(SupervisorSettings(), description="When models are loaded and unloaded.")
    audio: AudioSettings = Field(AudioSettings(), description="How speech is turned into text.")
    server: ServerSettings = Field(ServerSettings(), description="How connections are treated.")
    outbound: OutboundSettings = Field(OutboundSettings(), description="Where the server itself may connect to.")
    webhooks: WebhookSettings = Field(WebhookSettings(), description="Who is told what happens here.")
    chats: ChatSettings = Field(ChatSettings(), description="Chats that are kept for clients to go on with.")
    mcp: McpSettings = Field(McpSettings(), description="Which MCP servers give tools to chats.")
    wrapper: WrapperSettings = Field(WrapperSettings(), description="What stands behind the paths under /api/lmstudio.")
    logging: LoggingSettings = Field(LoggingSettings(), description="What the log tells, and how.")

    def for_model(self, model_id: str) -> ModelSettings:
        """Merge what is said about a model: the defaults, then the globs in the order of the file, then its own id."""
        merged = self.defaults
        for part in parts_for(self.models, model_id):
            merged = merged.merged(part)
        return merged
