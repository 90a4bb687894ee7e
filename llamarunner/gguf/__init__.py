"""Reads what a GGUF file says about itself.

A GGUF file begins with a header: metadata, then a line for each tensor. The header is all that is read here, from bytes
that the catalog hands in; its largest part by far, the tokenizer's vocabulary, is walked over but never built. Every
length is checked before it is used: whatever the bytes, the answer is a `Header` or a `GGUFError`, in time linear in
their number.

llama.cpp refuses what is refused here (nested arrays, repeated keys, tensors beyond the end of the file), so a file
that would fail is known before a process is started for it.
"""

from llamarunner.gguf.contents import Contents, contents
from llamarunner.gguf.header import GGUFError, Header, HeaderIncomplete, Scalar, Value
from llamarunner.gguf.parser import HEADER_BYTES, parse

__all__ = [
    "HEADER_BYTES",
    "Contents",
    "GGUFError",
    "Header",
    "HeaderIncomplete",
    "Scalar",
    "Value",
    "contents",
    "parse",
]
