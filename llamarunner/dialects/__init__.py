"""How clients speak: text in, text out, no I/O and no clock.

* `strict_json`  bytes → values, refusing what JSON parsers disagree about.
* `chat`         what every chat must have.
* `constraints`  grammars and schemas of a size that llama.cpp survives.
* `wire`         `Dialect`: the four sentences the relay must be able to say without knowing the language.
* `openai`       error bodies, error events and the list of models, as OpenAI's clients expect them.
* `anthropic`    the same for Anthropic's clients.
* `transcription` what was heard, as OpenAI's Audio API says it; `languages` are those that can be heard.
* `llama_cpp`    reads the errors of a model's process, and says them as ours.

Inside the house everything speaks OpenAI, as llama.cpp's server does; its answers pass through as bytes.
"""
