"""The wrapper API's paths, for the description of the API."""

from __future__ import annotations

from pydantic import JsonValue

from llamarunner.dialects.lmstudio import wrapper
from llamarunner.server.lmstudio_operations import NativeErrorAnswer
from llamarunner.server.operation import Choice, Operation, plain
from llamarunner.server.wrapper_api import ROOT, ROUTES

TAG = "wrapper"
_TYPE = Choice("model_type", "Only models of this type.", wrapper.KINDS)
_ERRORS = dict.fromkeys((400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504), NativeErrorAnswer)
_BODY = dict[str, JsonValue]

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        *("GET", f"{ROOT}/health", ROUTES["GET", f"{ROOT}/health"], wrapper.WrapperHealth),
        also={**_ERRORS, 503: wrapper.WrapperHealth},
        tag=TAG,
    ),
    *(
        Operation(
            *(method, plain(path), ROUTES[method, path], answer),
            body=body,
            body_required=body is not None,
            parameters=(_TYPE,) if path.endswith("/loaded") else (),
            also=_ERRORS,
            tag=TAG,
        )
        for method, path, answer, body in (
            ("GET", f"{ROOT}/models", wrapper.WrapperModels, None),
            ("GET", f"{ROOT}/models/loaded", wrapper.WrapperInstances, None),
            ("POST", f"{ROOT}/models/load", wrapper.WrapperLoaded, wrapper.WrapperLoad),
            ("DELETE", f"{ROOT}/models/unload/{{model_key:.+}}", wrapper.WrapperUnloaded, None),
            ("POST", f"{ROOT}/completions", wrapper.WrapperAnswer, _BODY),
            ("POST", f"{ROOT}/chat/completions", _BODY, _BODY),
            ("POST", f"{ROOT}/vision", wrapper.WrapperAnswer, wrapper.VisionRequest),
            ("POST", f"{ROOT}/tools", wrapper.WrapperToolsAnswer, wrapper.ToolsRequest),
        )
    ),
)
