"""LM Studio's own language: its REST APIs of `/api/v1` and `/api/v0`, and what it says in OpenAI's.

* `errors`       its three ways of saying what went wrong.
* `strict`       bodies in which a key that is not known is refused.
* `described`    the facts of a model and of its instances, for REST v1 and v0 and for the SDKs.
* `chat_request` the body of POST /api/v1/chat, and what llama.cpp is asked for it.
* `chat_events`  the answer to that, as events and as a document.

Facts: lmstudio.ai's documents of the REST API, and what its clients expect of the real server.
"""
