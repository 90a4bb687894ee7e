"""Paths in settings: `~` is the home folder, a relative one starts at the folder of the file that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

PATH_SCHEMA: dict[str, Any] = {"type": "string", "format": "path", "minLength": 1}


def _refuse_empty(value: Any) -> Any:
    """Raise ValueError for the empty string, which pathlib would take for the working directory."""
    if value == "":
        raise ValueError("a path may not be empty")
    return value


def _anchor(path: Path, info: ValidationInfo) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError:
        raise ValueError(f"the home folder of {path.parts[0]} is not known") from None
    folder: Path | None = (info.context or {}).get("folder")
    return folder / path if folder else path


ConfigPath = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_anchor), WithJsonSchema(PATH_SCHEMA)]
