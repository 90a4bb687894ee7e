"""Names of models as Ollama has them: `[host/][namespace/]model[:tag]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

HOST = "registry.ollama.ai"
NAMESPACE = "library"
TAG = "latest"
LONGEST = 1000  # letters; the parts of a name come to less

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class Name:
    """A whole name, with what was left out filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def short(self) -> str:
        """As Ollama shows it: without the usual host and namespace, always with the tag."""
        host = "" if self.host.casefold() == HOST else f"{self.host}/"
        namespace = "" if not host and self.namespace.casefold() == NAMESPACE else f"{self.namespace}/"
        return f"{host}{namespace}{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def parse(text: str) -> Name | None:
    """Read a name; None if it is none. No part of one can leave a folder: none begins with a dot or has a slash."""
    if len(text) > LONGEST:
        return None
    _, scheme, after = text.partition("://")
    rest = after if scheme else text
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, TAG
    parts = head.split("/")
    if not 1 <= len(parts) <= 3:
        return None
    model, namespace, host = [*reversed(parts), *(NAMESPACE, HOST)[len(parts) - 1 :]]
    well_formed = _PART.fullmatch(model) and _PART.fullmatch(tag) and _NAMESPACE.fullmatch(namespace)
    return Name(host, namespace, model, tag) if well_formed and _HOST.fullmatch(host) else None


def is_remote(text: str) -> bool:
    """Whether a name asks for a model of Ollama's own servers."""
    return text.endswith((":cloud", "-cloud"))


def contradicts_itself(text: str) -> bool:
    """Whether a name asks for a model of this machine and for one of Ollama's servers."""
    return is_remote(text.removesuffix(":local")) and (text.endswith(":local") or text.endswith(":local:cloud"))


def shown(model_id: str) -> str:
    """How one of our ids is shown in lists: with a tag, as clients expect."""
    return model_id if ":" in model_id.rpartition("/")[2] else f"{model_id}:{TAG}"
