"""OpenAI's Responses API over chats: what a request means as a chat, and a chat's answer as a response.

llama.cpp has a path of that name, which knows neither `text.format` nor `top_logprobs` nor what was said before, and
whose events lack their indexes. So requests become chats here, and streams of chats become its events.

* `asking`  the request as the body of a chat, with the items of responses before it.
* `telling` the response as a document and as events.

Source: OpenAI's API reference (Responses, streaming events).
"""
