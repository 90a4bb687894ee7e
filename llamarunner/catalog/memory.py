"""How large a model's key-value cache becomes: arithmetic on its header."""

from __future__ import annotations

from llamarunner.gguf import Header

# One layer in so many attends to the whole context, the others to a window, where the file does not say it itself.
_WINDOW_PERIODS = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2}
_BATCH_TOKENS = 512  # a window's cache also holds the batch being computed


def kv_cache_bytes(header: Header, ctx_size: int, bytes_per_element: float = 2.0) -> int:
    """Estimate the cache for `ctx_size` tokens; 2 bytes an element is llama.cpp's f16, the default."""
    window = header.detail("attention.sliding_window") or ctx_size
    everywhere = _share_of_full_layers(header)
    cells = everywhere * ctx_size + (1 - everywhere) * min(ctx_size, window + _BATCH_TOKENS)
    return int(_heads_of_all_layers(header) * _elements_of_head(header) * cells * bytes_per_element)


def _heads_of_all_layers(header: Header) -> int:
    """Return the number of key-value heads; layers that keep no cache have none."""
    for key in ("attention.head_count_kv", "attention.head_count"):
        heads = header.metadata.get(f"{header.architecture}.{key}")
        if isinstance(heads, tuple):
            return sum(count for count in heads if isinstance(count, int) and count > 0)
        if isinstance(heads, int):
            layers = (header.detail("block_count") or 0) // (header.detail("full_attention_interval") or 1)
            return layers * max(heads, 0)
    return 0


def _elements_of_head(header: Header) -> int:
    """Return the elements that one head keeps for one token, of key and value together."""
    by_default = (header.embedding_length or 0) // (header.detail("attention.head_count") or 1)
    key, value = (header.detail(f"attention.{part}_length") for part in ("key", "value"))
    if header.detail("attention.key_length_mla"):  # latent attention: the value is a part of the cached key
        value = 0
    return (by_default if key is None else key) + (by_default if value is None else value)


def _share_of_full_layers(header: Header) -> float:
    """Return which part of the layers attends to the whole context."""
    if not header.detail("attention.sliding_window"):
        return 1.0
    pattern = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and pattern:
        return 1 - sum(map(bool, pattern)) / len(pattern)
    period = pattern if isinstance(pattern, int) else _WINDOW_PERIODS.get(header.architecture or "", 1)
    return 1 / max(period, 1)
