"""`convert`: one document as Markdown, made in a process of its own.

A document comes from outside: it may be a bomb that unpacks to terabytes, or make a parser loop for ever. So it is parsed in a
child process (`converter.py`) that bounds its own memory and CPU time, gets no environment but the path of this program's
packages, and is killed when the time is over or nobody waits any more. What it may write is bounded here.

Documents are read and converted in a `turn`. One conversion of an owner runs or waits for its turn among the `MOST_AT_ONCE` of
all, first come first served, so that the flood of one tenant delays another by little, and few documents are in memory.
"""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from meshhost.child_process.ending import kill
from meshhost.errors import LimitExceededError, RequestTimeoutError, ToolError
from meshhost.markitdown.converter import MISSING, UNREADABLE

__all__ = ["CONVERT_SECONDS", "EXTENSIONS", "MAX_DOCUMENT_BYTES", "convert", "turn"]

# What a program may hand over, by the extension of its name.
EXTENSIONS = frozenset(
    {".csv", ".docx", ".epub", ".htm", ".html", ".ipynb", ".json", ".md", ".pdf", ".pptx", ".txt", ".xlsx", ".xml"}
)
MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
MAX_MARKDOWN_BYTES = 4 * 1024 * 1024
MEMORY_BYTES = 2 * 1024 * 1024 * 1024
CONVERT_SECONDS = 60.0
MOST_AT_ONCE = 2
MOST_WAITING = 32


@dataclass(slots=True)
class _Owner:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class _Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self.all = asyncio.Semaphore(MOST_AT_ONCE)
        self.owners: dict[str, _Owner] = {}


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def turn(owner: str, *, timeout: float = CONVERT_SECONDS) -> AsyncIterator[None]:
    """Wait for the turn of this owner, such as a tenant, and hold it inside the block, at most `timeout` seconds altogether.

    Raises LimitExceededError when too many of the owner wait already, RequestTimeoutError when the time is over.
    """
    turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
    mine = turns.owners.setdefault(owner, _Owner())
    if mine.waiting >= MOST_WAITING:
        raise LimitExceededError(f"{MOST_WAITING} documents wait already to be converted: try again later")
    mine.waiting += 1
    try:
        async with asyncio.timeout(timeout), mine.lock, turns.all:
            yield
    except TimeoutError:
        raise RequestTimeoutError(f"the document was not converted within {timeout:g} s") from None
    finally:
        mine.waiting -= 1
        if not mine.waiting:
            turns.owners.pop(owner, None)


async def convert(
    data: bytes, extension: str, *, timeout: float = CONVERT_SECONDS, memory_bytes: int = MEMORY_BYTES
) -> str:
    """Return the document as Markdown. `extension` says what it is, with its dot and in lower case.

    Raises LimitExceededError for a document that is too large, or whose Markdown is, RequestTimeoutError after `timeout`
    seconds, and ToolError for one that cannot be read, or when the package `markitdown` is missing.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise LimitExceededError(f"the document has {len(data)} bytes; at most {MAX_DOCUMENT_BYTES} can be converted")
    try:
        async with asyncio.timeout(timeout):
            return await _converted(data, extension, cpu_seconds=max(1, round(timeout)), memory_bytes=memory_bytes)
    except TimeoutError:
        raise RequestTimeoutError(f"the document was not converted within {timeout:g} s") from None


async def _converted(data: bytes, extension: str, *, cpu_seconds: int, memory_bytes: int) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshhost.markitdown.converter", "--extension", extension),
        *("--memory-bytes", str(memory_bytes), "--cpu-seconds", str(cpu_seconds)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=_environment(),
        start_new_session=True,
    )
    try:
        markdown, why = await _exchange(process, data)
        code = await process.wait()
    finally:
        kill(process, group=True)  # a parser may have started programs
        await process.wait()
    if code == 0:
        return markdown.decode(errors="replace")
    if code == MISSING:
        raise ToolError(f"converting documents needs a library more ({why}): pip install 'meshhost[markitdown]'")
    if code == UNREADABLE:
        raise ToolError(f"the document could not be read as {extension} ({why})")
    raise ToolError(f"the document could not be read as {extension}: its parser used up its memory or time, or crashed")


async def _exchange(process: Process, data: bytes) -> tuple[bytes, str]:
    """Hand over the document; what the process wrote, and the last line of what it said."""
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ToolError("the converter has no pipes")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_feed(process.stdin, data))
        said = tasks.create_task(_last_line(process.stderr))
        markdown = bytearray()
        while chunk := await process.stdout.read(65536):
            markdown += chunk
            if len(markdown) > MAX_MARKDOWN_BYTES:
                kill(process, group=True)
                break
    if len(markdown) > MAX_MARKDOWN_BYTES:
        raise LimitExceededError(f"the document has more than {MAX_MARKDOWN_BYTES} bytes of text")
    return bytes(markdown), said.result()


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # it ended before it had read everything: its exit code says why
        stdin.write(data)
        await stdin.drain()
    stdin.close()


async def _last_line(stderr: asyncio.StreamReader) -> str:
    last = b""
    while chunk := await stderr.read(4096):
        last = (last + chunk)[-1000:]
    lines = last.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""


def _environment() -> dict[str, str]:
    # Not the whole environment: the parsers need none of our secrets. One thread each, for numpy reserves memory by thread.
    packages = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": os.defpath, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
