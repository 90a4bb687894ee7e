"""What is running: launch descriptions, the schedule, children, and the supervisor that ties them.

* `launch`      what a runtime is: argv, environment, how it tells that it is ready (pure).
* `runtimes`    a model and its settings → `Launch`, one function for each kind of runtime (pure).
* `binaries`    which runtimes this machine has, and which flags each build knows.
* `launcher`    settings and this machine's builds → the launch of a model, with a fresh secret.
* `unit`        what the schedule speaks of: units, states, terms and effects (pure).
* `schedule`    who runs: every decision, as facts in and effects out, without I/O or clock (pure).
* `progress`    how far a model is from being ready, and when it may be.
* `group`       a child with all its offspring, on POSIX and on Windows.
* `output`      what a model's processes print, kept across their lives, and who follows it.
* `child`       one OS process and its offspring: output, readiness, TERM → KILL → reap.
* `keeping`     runs the keeper, which ends our children should we be killed.
* `lease`       one life of a process, and the right to use it.
* `subject`     what is kept of each unit, and what settings say about its process.
* `supervisor`  feeds facts to the schedule and carries out its effects; `lease` is the only way to use a model.

The way of a request: `lease` hands the schedule a ticket → `Grant`, or `Spawn` and a wait → the child says that it is
ready → `Grant` → the caller talks to the child → leaving the lease hands the ticket back. A caller that leaves early
does the same; nothing else needs to know.

Nothing outlives the server: children are ended in order at shutdown, and `workers.keeper`, a process that only
waits for the server to vanish, ends them when the server could not.
"""
