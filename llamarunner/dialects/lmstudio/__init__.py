"""LM Studio's own APIs, as text in and text out.

* `errors`      what goes wrong, in the three ways in which LM Studio says it.
* `strict`      bodies of REST v1, whose unknown keys are refused.
* `managing`    bodies and answers about loading, unloading and downloading.
* `described`   the facts of a model and of its instances, for REST v1 and v0 and for the SDKs.
* `v0`          answers of REST v0: OpenAI's, with how fast they were, why they ended, and by what they were made.
* `chat_request` the body of POST /api/v1/chat, and what llama.cpp is asked for it.
* `chat_events`  the answer to that, as events and as a document.

and for the websockets of the SDKs:

* `sdk_frames`      what goes through one, in both directions.
* `sdk_config`      configurations, and what llama.cpp makes of them.
* `sdk_history`     conversations, made into OpenAI's messages.
* `sdk_prediction`  a streamed answer, made into packets.
* `sdk_infos`       models and instances as clients expect them.
* `sdk_uploads`     what kind of file a client has uploaded.
* `sdk_errors`      errors, with what clients can show of them.
"""
