"""LM Studio's own language: its REST APIs of `/api/v1` and `/api/v0`, and what it says in OpenAI's.

Facts: lmstudio.ai's documents of the REST API, and what its clients expect of the real server.
"""
