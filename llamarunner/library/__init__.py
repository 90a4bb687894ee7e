"""The models that LlamaRunner stores itself: pulled, created, copied, deleted.

    async with Library(catalog, outbound, changed) as library:
        async with aclosing(library.pull("hf.co/owner/repository:Q4_K_M")) as progress:
            async for line in progress: ...

They lie in a folder of our own, in Ollama's layout (`catalog.manifests` has it); other programs' stores are only read.
A model is there when its manifest is, which is written last and whole; all before that are blobs under their digests,
and files that end in `.part`, from which the next pull goes on. One process writes a library at a time.

`registry` and `hub` know where the files of a model are, `download` brings them, `blobs` keeps them, `flights` lets
several callers share one pull, `jobs` are pulls that nobody waits for, `creation` makes models of others, `digests`
knows what has been hashed, and `library` puts it together.
"""

from llamarunner.library.blobs import DigestMismatch, InvalidDigest
from llamarunner.library.creation import Recipe
from llamarunner.library.digests import Digests
from llamarunner.library.faults import NoRoom, NotInstalled, NotOffered, PullFailed
from llamarunner.library.flights import Line
from llamarunner.library.jobs import Job, JobState
from llamarunner.library.library import Library

__all__ = [
    "DigestMismatch",
    "Digests",
    "InvalidDigest",
    "Job",
    "JobState",
    "Library",
    "Line",
    "NoRoom",
    "NotInstalled",
    "NotOffered",
    "PullFailed",
    "Recipe",
]
