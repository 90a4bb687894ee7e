"""Ollama's API, as far as it is text in and text out.

`names` and `durations` read what is Ollama's own way of writing things, `requests` reads bodies as its decoder does,
`options` and `asking` say a request as llama.cpp's OpenAI-shaped server wants it, and `answers` say in Ollama's objects
what that server answers. `errors` are its texts: `{"error": "…"}`, before a stream with a status, inside one as the
last line.
"""
