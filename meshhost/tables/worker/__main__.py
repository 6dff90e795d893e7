"""The program of a worker process: `python -m meshhost.tables.worker OPTIONS`, with the options as JSON.

Requests are read one after the other and run as tasks beside each other; each gets one answer. A request to `cancel` another
one ends its task. The standard output carries the answers only: what a library prints goes nowhere. When the standard input
ends, the server is gone, and so is this process at once.
"""

import asyncio
import json
import os
import sys
from typing import Any

from meshhost.tables.frames import RefusedError, pack, read_frame
from meshhost.tables.priority import USUAL
from meshhost.tables.worker.database import Databases
from meshhost.tables.worker.memory import watch_memory
from meshhost.tables.worker.operations import Operations, refusal_of

_MB = 1024 * 1024


class _Worker:
    def __init__(self, operations: Operations, out: int) -> None:
        self._operations = operations
        self._out = out
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    header, data = await read_frame(reader)
                except asyncio.IncompleteReadError:
                    os._exit(
                        0
                    )  # whatever is computed now is for nobody; a commit is one step, so no table is half written
                if "cancel" in header:
                    if (given_up := self._tasks.get(header["cancel"])) is not None:
                        given_up.cancel()
                    continue
                number = header["id"]
                task = tasks.create_task(self._run(number, header, data), name=f"{header['op']} {number}")
                self._tasks[number] = task

    async def _run(self, number: int, header: dict[str, Any], data: bytes) -> None:
        body = header["body"]
        answer, result = {"cancelled": True}, b""
        try:
            answer, result = await self._operations.run(header["op"], body, data)
        except asyncio.CancelledError:
            pass  # answered, so that the server knows that nothing of it is left
        except RefusedError as error:
            answer = _refused(error)
        except Exception as error:  # noqa: BLE001 - one request fails, others go on
            answer = _refused(refusal_of(error, body))
        finally:
            del self._tasks[number]
        await self._answer({"id": number, **answer}, result)

    async def _answer(self, header: dict[str, Any], data: bytes) -> None:
        async with self._writing:
            for part in pack(header, data):
                await asyncio.to_thread(_write, self._out, part)


def _refused(error: RefusedError) -> dict[str, Any]:
    return {"error": {"kind": error.kind, "text": error.text, "field": error.field}}


def _write(out: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


async def _main(options: dict[str, Any], out: int) -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=_MB)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    memory = options["memory_mb"] * _MB
    databases = Databases(options["base"], memory_bytes=memory)
    worker = _Worker(Operations(databases, result_bytes=options["result_bytes"]), out)
    watch_memory(memory)
    await worker._answer({"id": 0}, b"")  # noqa: SLF001 - ready
    await worker.serve(reader)


def _run_until_input_ends(options: dict[str, Any]) -> None:
    out = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.nice(USUAL)
    asyncio.run(_main(options, out))


if __name__ == "__main__":
    _run_until_input_ends(json.loads(sys.argv[1]))
