"""Files through LM Studio's sockets: pictures that a client uploads to show them to models."""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.dialects.lmstudio.sdk_frames import Sent, checked
from llamarunner.dialects.lmstudio.sdk_uploads import upload
from llamarunner.errors import PayloadTooLarge
from llamarunner.server.body import MB
from llamarunner.server.sdk_endpoints import Caller, Rpc


class UploadFile(Sent):
    name: str
    content_base64: str


async def _upload(caller: Caller, parameter: object) -> object:
    asked = checked(UploadFile, parameter)
    limit = caller.account.limits.file_upload_size_mb
    if limit is not None and len(asked.content_base64) * 3 / 4 > limit * MB:
        raise PayloadTooLarge(f"The file is larger than the limit of {limit} MB.", param="contentBase64")
    file = upload(asked.content_base64)
    identifier = caller.view.guests.keep(caller.guest, file)
    return {"identifier": identifier, "fileType": file.kind, "sizeBytes": file.size}


RPCS: Mapping[str, Rpc] = {"uploadFileBase64": _upload}
