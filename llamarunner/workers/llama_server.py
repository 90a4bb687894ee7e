"""llama.cpp's own server out of the xllamacpp wheel, as a program with llama-server's flags.

`python -m llamarunner.workers.llama_server --model FILE --port 0` loads the model, listens, and prints one line of JSON
on stdout, `{"event": "ready", "port": …, "pid": …}`; all else goes to stderr. The API key comes from `LLAMA_API_KEY`.
SIGTERM ends it at once, with exit code 0; while it still loads, by the signal itself. A model that cannot be loaded is
exit code 1, a mistake in the arguments 2.

Defaults are those of llama-server: where its main program sets one that the library does not, so do we. Starting
must be quick, so little is imported, and xllamacpp only once the arguments are known to ask for it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

from llamarunner.workers.llama_flags import UsageError, parse, usage
from llamarunner.workers.program import die_with_parent, fail, reserve_stdout


def main(arguments: list[str]) -> int:
    if "--help" in arguments or "-h" in arguments:
        print(f"usage: llama_server --model FILE [options]\n\n{usage()}\n-h, --help\n--version")
        return 0
    if "--version" in arguments:
        print(version())
        return 0
    return serve(arguments)


def version() -> str:
    from importlib.metadata import version as installed

    return f"version: {installed('xllamacpp')} (xllamacpp)"


def serve(arguments: list[str]) -> int:
    stdout = reserve_stdout()
    die_with_parent()
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(arguments, xllamacpp.CommonParams()))
    except UsageError as error:
        return fail(f"error: {error}", 2)
    except Exception as error:  # the library's one exception for all that can go wrong; its log says what it was
        return fail(f"error: the model could not be loaded: {error}", 1)
    stopped = catch_signals()
    port = int(server.listening_address.rsplit(":", 1)[1])
    os.write(stdout, json.dumps({"event": "ready", "port": port, "pid": os.getpid()}).encode() + b"\n")
    stopped.recv(1)
    os._exit(0)  # the library's own end waits for every open stream


def parameters(arguments: list[str], params: Any) -> Any:
    """Fill in the arguments, and what llama-server's main program adds to them; raises UsageError."""
    params.n_parallel = -1
    params.default_template_kwargs = {"preserve_reasoning": "true"}
    parse(arguments, params)
    if not params.model.path:
        raise UsageError("--model is required")
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    if params.n_parallel < 0:
        params.n_parallel, params.kv_unified = 4, True
    if params.embedding:
        params.n_batch = min(params.n_batch, params.n_ubatch)
    if params.cpuparams_batch.n_threads < 0:
        params.cpuparams_batch.n_threads = params.cpuparams.n_threads
    return params


def catch_signals() -> socket.socket:
    """Return a socket that SIGTERM or SIGINT makes readable.

    A wait that the arrival of a signal merely interrupts could miss one that comes just before it.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    return reader


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
