"""Programs that are run as children, never imported by the server.

* `llama_server`  llama.cpp's own server from the xllamacpp wheel, under llama-server's flag names.
* `llama_flags`   those flags, and what each does to the library's parameters.
* `whisper`       speech to text with faster-whisper; `whisper_model`, `whisper_audio`, `whisper_decode` and
  `whisper_queue` are its parts: the model, recordings as slices, one recording's way to text, and whose turn it is.
* `program`       what every worker does at its start.
* `keeper`        ends the children when the server was killed and could not.
"""
