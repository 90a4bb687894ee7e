"""Which models exist on this machine, and by which names they are known.

`places` knows where programs keep models, `discover` finds the files there, `manifests` reads Ollama's layout,
`readings` reads each header once, `kinds` tells what a header is good for, `speech` knows the folders of speech models,
`naming` gives ids, `scan` puts it together, `catalog` keeps the result and searches in it, and `remarks` compares the
settings with it. Nothing is written here;
`library` writes what is LlamaRunner's own.

A file that is broken, truncated or something else is an entry with an `error`; it never stops a scan. One model is one
entry, in however many shards it comes and by however many links it is reached.
"""

from llamarunner.catalog.catalog import Catalog
from llamarunner.catalog.entry import NO_PRESET, Capability, Format, ModelEntry, Preset, Source, Stamp
from llamarunner.catalog.memory import kv_cache_bytes
from llamarunner.catalog.places import Places
from llamarunner.catalog.remarks import remarks

__all__ = [
    "NO_PRESET",
    "Capability",
    "Catalog",
    "Format",
    "ModelEntry",
    "Places",
    "Preset",
    "Source",
    "Stamp",
    "kv_cache_bytes",
    "remarks",
]
