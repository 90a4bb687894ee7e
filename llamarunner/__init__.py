"""LlamaRunner: one process that makes GGUF models speak every API that tools already use.

Ten ideas, each with one home: *settings* (`config`), *catalog* (`catalog`, `gguf`), *dialect* (`dialects`),
*launch*, *child* and *supervisor* (`fleet`), *relay* and *door* (`server`), *limits*, and *events* (`events`).
Imports go one way: cli → app → server → {fleet | dialects} → catalog → {config | gguf} → {errors | events}.
"""

__version__ = "0.1.0"
