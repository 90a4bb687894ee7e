"""LM Studio's own APIs, as text in and text out.

* `described`       the facts of a model and of its instances, for REST v1 and v0 and for the SDKs.
* `sdk_frames`      the frames of the SDKs' websockets, in both directions.
* `sdk_config`      the configurations that they hold, and what llama.cpp makes of them.
* `sdk_history`     conversations, made into OpenAI's messages.
* `sdk_prediction`  a streamed answer, made into packets.
* `sdk_infos`       models and instances as the SDKs expect them.
* `sdk_files`       what kind of file a client has uploaded.
* `sdk_errors`      errors, with what clients can show of them.
"""
