"""LM Studio's own APIs, as text in and text out.

* `described`   the facts of a model and of its instances, for REST v1 and v0 and for the SDKs.
"""
