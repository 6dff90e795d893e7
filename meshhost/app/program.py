"""Runs a user's program as a child process: finds, starts, signals and ends it.

Used by `service_runner`. The program leads a session of its own, so that Ctrl-C in a terminal reaches only this process, which
passes it on once. It ends with the block of `running_program`, and, on Linux, when this process is killed.

Who wants to see its log gets each record (`on_record`): the program then writes its log as JSON, and its stderr comes through
this process, which passes it on line by line.
"""

import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meshhost.errors import SettingsError
from meshhost.hosting.processes.linux import signal_when_parent_ends

__all__ = ["RunningProgram", "arguments_of", "exit_code_of", "running_program"]

logger = logging.getLogger(__name__)

# A longer line of the program's stderr is passed on in parts.
_MAX_LINE = 1024 * 1024
# What a process of the program's own holds open is not waited for any longer.
_LAST_LINES_SECONDS = 2.0


class RunningProgram:
    """A program that was started. It may take `stop_seconds` to stop before it is killed; that may be set later."""

    def __init__(self, process: asyncio.subprocess.Process, *, stop_seconds: float) -> None:
        self.stop_seconds = stop_seconds
        self._process = process

    @property
    def exit_code(self) -> int:
        """The exit code of the program, as a shell reports it; 0 while it runs."""
        return exit_code_of(self._process.returncode)

    async def wait(self) -> int:
        """Wait until it has ended and return its exit code."""
        await self._process.wait()
        return self.exit_code

    def terminate(self) -> None:
        """Send it SIGTERM; ignored when it has ended."""
        self._signal(signal.SIGTERM)

    async def end(self) -> None:
        """Send it SIGTERM and return when it has ended; it is killed after `stop_seconds`. Idempotent."""
        if self._process.returncode is not None:
            return
        self.terminate()
        try:
            async with asyncio.timeout(self.stop_seconds):
                await self._process.wait()
        except TimeoutError:
            logger.warning("the program did not stop in time and is killed", extra={"timeout": self.stop_seconds})
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


@asynccontextmanager
async def running_program(
    arguments: list[str],
    *,
    variables: Mapping[str, str],
    stop_seconds: float,
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> AsyncIterator[RunningProgram]:
    """Start the program with these variables added to its environment; it is ended when the block is left.

    `on_record` gets each record that it logs, as `logs.JsonFormatter` writes it, before the record appears on stderr. A program
    that has set up logs of another form has none.
    """
    added = variables if on_record is None else {**variables, "MESHHOST_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env={**os.environ, **added},  # noqa: TID251 - handed on, not read
        start_new_session=True,
        preexec_fn=_die_with_parent,
        stderr=None if on_record is None else asyncio.subprocess.PIPE,
        limit=_MAX_LINE,
    )
    program = RunningProgram(process, stop_seconds=stop_seconds)
    async with _passed_on(process.stderr, on_record):
        try:
            yield program
        finally:
            await program.end()


@asynccontextmanager
async def _passed_on(
    stderr: asyncio.StreamReader | None, on_record: Callable[[dict[str, Any]], None] | None
) -> AsyncIterator[None]:
    """Write to our stderr what comes, and hand out the records in it, until the end of the block and of what came before it."""
    if stderr is None or on_record is None:
        yield
        return
    reading = asyncio.get_running_loop().create_task(_pass_on(stderr, on_record), name="stderr of the program")
    try:
        yield
    finally:
        await asyncio.wait({reading}, timeout=_LAST_LINES_SECONDS)
        reading.cancel()
        await asyncio.wait({reading})


async def _pass_on(stderr: asyncio.StreamReader, on_record: Callable[[dict[str, Any]], None]) -> None:
    while line := await _line(stderr):
        text = line.decode(errors="replace")
        with contextlib.suppress(ValueError):
            record = json.loads(text) if text.startswith("{") else None
            if isinstance(record, dict):
                on_record(record)
        sys.stderr.write(text)
        sys.stderr.flush()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a part of a very long one; empty at the end."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


def arguments_of(command: str) -> list[str]:
    """Return the arguments that run a command such as `main.py --verbose` by this Python. Raises SettingsError.

    A shell has removed the quotes of a path with spaces, so the file is the shortest beginning of the command that is one.
    """
    if not command.strip():
        raise SettingsError("expected a Python file to run, such as main.py")
    ends = [*(place for place, character in enumerate(command) if character == " "), len(command)]
    for end in ends:
        if Path(command[:end]).is_file():
            return [sys.executable, command[:end], *_words(command[end:])]
    words = _words(command)
    if not words or not Path(words[0]).is_file():
        name = words[0] if words else command
        raise SettingsError(f"no file {name!r}: expected a Python program with a ServiceHost")
    return [sys.executable, *words]


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"cannot read the command {command!r}: {error}") from None


def exit_code_of(returned: int | None) -> int:
    """Return the exit code as a shell reports it: 128 + N for a program that signal N ended; 0 for None."""
    code = returned or 0
    return 128 - code if code < 0 else code


def _die_with_parent() -> None:
    # SIGTERM and not SIGKILL: a host whose runner was killed still drains its agents.
    signal_when_parent_ends(signal.SIGTERM)
