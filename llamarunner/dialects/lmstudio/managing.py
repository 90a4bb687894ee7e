"""What LM Studio's REST API is told and tells about loading, unloading and downloading models. Bodies are strict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=1024)]


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoadRequest(Body):
    """How a new instance is to run; what is not said is as the settings have it."""

    model: Name = Field(description="The key of the model, or any of its names.")
    context_length: int | None = Field(None, ge=1, le=16_777_216, description="Tokens that one request can have.")
    eval_batch_size: int | None = Field(None, ge=1, le=1_048_576, description="Tokens evaluated in one batch.")
    flash_attention: bool | None = Field(None, description="Whether to use flash attention.")
    num_experts: int | None = Field(
        None, ge=1, le=10_000, description="Experts used for each token; no matter to a model that is no mixture."
    )
    offload_kv_cache_to_gpu: bool | None = Field(None, description="Whether the KV cache is kept on the GPU.")
    echo_load_config: bool | None = Field(None, description="Tell how the instance runs.")


class UnloadRequest(Body):
    """Which instance is to end."""

    instance_id: Name = Field(description="As the load or the list of models told it.")


class DownloadRequest(Body):
    """Which model to bring."""

    model: Name = Field(description="A link to a repository of Hugging Face, or a name of the library.")
    quantization: Annotated[str, Field(min_length=1, max_length=80)] | None = Field(
        None, description="Which quantisation of a repository, such as Q4_K_M."
    )


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """How an instance runs, as a load echoes it; of an embedding model the context alone."""

    context_length: int
    eval_batch_size: int | None = None
    flash_attention: bool | None = None
    offload_kv_cache_to_gpu: bool | None = None
    num_experts: int | None = None


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """A new instance is ready."""

    type: Literal["llm", "embedding"]
    instance_id: str
    load_time_seconds: float
    status: Literal["loaded"]
    load_config: LoadConfig | None = None  # only where the request wants it


@dataclass(frozen=True, slots=True)
class ModelUnloaded:
    """An instance is gone."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class DownloadStarted:
    """A download, or that there is none to do."""

    job_id: str | None
    status: Literal["downloading", "already_downloaded"]
    total_size_bytes: int | None = None
    started_at: str | None = None


@dataclass(frozen=True, slots=True)
class DownloadStatus:
    """How far a download is. Times are ISO 8601, in UTC."""

    job_id: str
    status: Literal["downloading", "completed", "failed"]
    bytes_per_second: float | None = None  # while it is under way
    estimated_completion: str | None = None  # while it is under way
    completed_at: str | None = None
    total_size_bytes: int | None = None
    downloaded_bytes: int | None = None
    started_at: str | None = None
    error: str | None = None  # why it failed


def without_nothing(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not known: LM Studio has no nulls in these answers."""
    return {
        key: without_nothing(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if value is not None
    }
