"""The program of LocalProvider's child process: llama.cpp's own HTTP server on a loopback port.

`python -m meshhost.gateway.local.runner --model FILE --host 127.0.0.1 --threads 2`. The first line on stdin is the key that
requests must carry. When the model is loaded, one JSON line `{"address": "http://127.0.0.1:port"}` is written to stdout,
and nothing else. A thread reads stdin and ends the process with it, so it cannot outlive its parent. The module imports
nothing of meshhost, so that the child is small and starts fast.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["main", "serve"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until stdin is closed."""
    parser = argparse.ArgumentParser(prog="meshhost.gateway.local.runner")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", default="local")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=4096)
    options = parser.parse_args(arguments)
    key = sys.stdin.buffer.readline().decode().strip()
    # Before the model is loaded: a parent that dies meanwhile must not leave this process behind.
    threading.Thread(target=_end_with, args=(sys.stdin.buffer, os._exit), daemon=True).start()
    with _private_stdout() as stdout:
        server = serve(options, key)
        stdout.write(json.dumps({"address": server.listening_address}).encode() + b"\n")
        stdout.flush()
        threading.Event().wait()


def serve(options: argparse.Namespace, key: str) -> Any:
    """Load the model and listen on a free port. Returns llama.cpp's server, which serves in threads of its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.name}
    params.n_ctx = options.context
    params.n_parallel = 1
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.hostnames = [options.host]
    params.port = 0
    params.api_keys = [key]
    params.ui = False
    params.verbosity = -1
    return xllamacpp.Server(params)


def _private_stdout() -> BinaryIO:
    """Return the real stdout, and redirect what llama.cpp prints to /dev/null."""
    stdout = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return os.fdopen(stdout, "wb")


def _end_with(stdin: BinaryIO, end: Callable[[int], None]) -> None:
    while stdin.read(4096):
        pass
    # Without cleaning up: the destructors of the native server wait for requests in progress.
    end(0)


if __name__ == "__main__":
    main()
