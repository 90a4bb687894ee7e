"""What a file is, and what a model can do, as its header tells."""

from __future__ import annotations

from enum import StrEnum

from llamarunner.catalog.entry import Capability
from llamarunner.gguf import Header

_EMBEDDING_ARCHITECTURES = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
_POOLING_RANK = 4  # llama.cpp's number for a model that scores documents
_TOOL_SIGNS = ("tools", "tool_call")
_THINKING_SIGNS = ("enable_thinking", "<think>", "[THINK]", "reasoning")


class Kind(StrEnum):
    """What a GGUF file is."""

    MODEL = "model"
    PROJECTOR = "projector"  # the eyes or ears of a model in another file
    PART = "part"  # an adapter, a bare vocabulary, an importance matrix: of use only to other programs or files


def kind_of(header: Header) -> Kind:
    kind = header.text("general.type")
    if header.architecture == "clip" or kind == "mmproj":
        return Kind.PROJECTOR
    if kind in ("adapter", "imatrix") or header.architecture == "controlvector":
        return Kind.PART
    is_shard = (header.number("split.count") or 0) > 1
    return Kind.MODEL if header.tensor_count or is_shard else Kind.PART


def why_unusable(header: Header) -> str | None:
    """Return why llama.cpp could not serve this model, or None."""
    if not header.architecture:
        return "the file does not say its architecture"
    if not header.text("tokenizer.ggml.model"):
        return f"no tokenizer: '{header.architecture}' is not a language model that llama.cpp can serve"
    return None


def sees(projector: Header | None) -> bool:
    """Tell whether a projector takes images; older ones do not say so, and take nothing else."""
    if projector is None:
        return False
    return bool(
        projector.metadata.get("clip.has_vision_encoder") or not projector.metadata.get("clip.has_audio_encoder")
    )


def capabilities_of(header: Header, projector: Header | None = None) -> frozenset[Capability]:
    if header.pooling_type == _POOLING_RANK or header.has_classifier:
        return frozenset({Capability.RERANK})
    if header.architecture in _EMBEDDING_ARCHITECTURES or header.pooling_type:
        return frozenset({Capability.EMBEDDING})
    templates = "\n".join(header.chat_templates)
    signs = {
        Capability.COMPLETION: True,
        Capability.CHAT: bool(templates),
        Capability.TOOLS: any(sign in templates for sign in _TOOL_SIGNS),
        Capability.THINKING: any(sign in templates for sign in _THINKING_SIGNS),
        Capability.VISION: sees(projector),
        Capability.FIM: header.has_fim_tokens,
    }
    return frozenset(capability for capability, shown in signs.items() if shown)
