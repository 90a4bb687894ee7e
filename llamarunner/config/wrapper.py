"""The wrapper API: which LM Studio stands behind it, and which pictures of this machine it may show to models."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from llamarunner.config.model import Frozen
from llamarunner.config.paths import ConfigPath

HostAndPort = Annotated[
    str, Field(pattern=r"^(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?$", max_length=300)
]


class WrapperSettings(Frozen):
    """The paths under /api/lmstudio."""

    lmstudio_host: HostAndPort | None = Field(
        None,
        description="An LM Studio (0.4 or newer) on another port or machine, as host:port, to which these paths lead; "
        "the environment variable LMSTUDIO_HOST sets it too. Null: they lead to the models of this server.",
    )
    lmstudio_token: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        None, description='The API token for that LM Studio, if it asks for one; write it as "${LM_API_TOKEN}".'
    )
    connect_seconds: float = Field(5, gt=0, le=3600, description="How long a connection to it may take.")
    answer_seconds: float = Field(
        10, gt=0, le=3600, description="How long it may take to tell its models, or to unload one."
    )
    image_folders: tuple[ConfigPath, ...] = Field(
        (), description="Folders whose images clients may name by path; with none only data URLs are taken."
    )
    image_size_mb: int = Field(20, ge=1, le=1000, description="Largest image that is read from them, in MB.")

    @property
    def base_url(self) -> str | None:
        """Where LM Studio is, without a slash at the end."""
        if self.lmstudio_host is None:
            return None
        scheme, _, host = self.lmstudio_host.rstrip("/").rpartition("://")
        has_port = ":" in host.rpartition("]")[2]
        return f"{scheme or 'http'}://{host}" + ("" if has_port or scheme == "https" else ":1234")
