"""Bodies of LM Studio's own API, which are strict: a key that is not known is refused, by name."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llamarunner.dialects.lmstudio.errors import InvalidType, InvalidValue, MissingParameter, UnrecognizedKeys
from llamarunner.errors import InvalidRequest

B = TypeVar("B", bound=BaseModel)

MAX_SHOWN_PARAM = 100  # characters


def validated(kind: type[B], raw: bytes) -> B:
    """Read a JSON object whose `kind` forbids extra keys. Raises InvalidRequest in its words, with a code."""
    try:
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise _fault(error) from None


def _fault(error: ValidationError) -> InvalidRequest:
    faults = error.errors(include_url=False, include_input=False)
    extra = [fault["loc"] for fault in faults if fault["type"] == "extra_forbidden"]
    keyless = [fault for fault in faults if extra and fault["loc"] == (*extra[0][:-1], "type")]
    if extra and not keyless:  # of an object whose type is wrong no key can be judged
        return UnrecognizedKeys([str(loc[-1]) for loc in extra if loc[:-1] == extra[0][:-1]])
    fault = (keyless or faults)[0]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    param = param.removeprefix(".")[:MAX_SHOWN_PARAM]
    if fault["type"] == "missing":
        return MissingParameter(param)
    message = fault["msg"]
    kind = InvalidType if fault["type"].endswith("_type") else InvalidValue
    return kind(f"'{param}' is wrong: {message[:1].lower()}{message[1:]}.", param=param)
