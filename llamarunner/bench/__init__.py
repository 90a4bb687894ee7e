"""`llamarunner bench …`: what the server costs, as ratios against going straight, for us and for users.

Both arms are measured in one run, turn and turn about, so that whatever else the machine does hits both alike.

* `load`    a load generator, and what it saw.
* `audio`   speech to text through a door against faster-whisper called directly, which is `hear`.
* `proxy`   through a door against straight to the same kind of child.
"""
