"""A machine that lets us open no more files: what cannot be read then says nothing of what is there."""

from __future__ import annotations

import errno


class Starved(Exception):
    """The system lets nobody, or not this process, open another file."""


def check(error: OSError) -> None:
    """Raises Starved for an error that is no fault of the file."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise Starved from error
