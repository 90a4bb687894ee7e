"""Webhooks: tells other programs what happens here, surely, in order, and without making anybody wait.

* `policy`   what happens after an attempt, pure: retry when, give up, disable; which events a glob means.
* `signing`  Standard Webhooks: secrets and signatures, pure.
* `outbox`   the SQLite file: webhooks, what is still to be delivered, and how the last attempts went.
* `delivery` one webhook's line: the oldest delivery is attempted until it succeeds or is given up.
* `room`     all of it together, and what clients can ask.

An event is written to the outbox first, with one body for all, and deleted only after it was delivered: what is in
there survives the end of the process, and is sent again under the same id when nobody knows whether it arrived. Each
webhook has a line of its own, which one slow target holds up alone. The file belongs to one server at a time; another
one that is given the same folder answers 503 for webhooks and does the rest of its work. It is made at the first
registration, so that a server without webhooks writes nothing.
"""

from llamarunner.webhooks.outbox import Asker, Attempt, Endpoint, Summary
from llamarunner.webhooks.room import Registration, Webhooks

__all__ = ["Asker", "Attempt", "Endpoint", "Registration", "Summary", "Webhooks"]
