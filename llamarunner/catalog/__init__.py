"""Which models exist on this machine, and by which names they are known.

`places` knows where programs keep models, `discover` finds the files there, `readings` reads each header once, `kinds`
tells what a header is good for, `speech` knows the folders of speech models, `naming` gives ids, `scan` puts it
together, and `catalog` keeps the result and searches in it. Other programs' stores are only read.

A file that is broken, truncated or something else is an entry with an `error`; it never stops a scan. One model is one
entry, in however many shards it comes and by however many links it is reached.
"""

from llamarunner.catalog.catalog import Catalog
from llamarunner.catalog.entry import Capability, Format, ModelEntry, Source
from llamarunner.catalog.memory import kv_cache_bytes
from llamarunner.catalog.places import Places

__all__ = ["Capability", "Catalog", "Format", "ModelEntry", "Places", "Source", "kv_cache_bytes"]
