"""Programs that are run as children, never imported by the server.

* `llama_server`  llama.cpp's own server from the xllamacpp wheel, under llama-server's flag names.
* `llama_flags`   those flags, and what each does to the library's parameters.
* `keeper`        ends the children when the server was killed and could not.
"""
