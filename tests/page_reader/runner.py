"""Runs a page as its reader would: files are written, commands are run, and what they print is compared with the page.

`Reader` has a home of its own (`tests/e2e/conftest.py`) whose program is a shell: an empty directory, its own configuration and
data, and its own ports in place of 8080 and 8081. A block of language `text` says what the command
before it prints: each of its lines must be in the output, with `…` standing for anything. The command is repeated until it
prints that, since some work takes its time; a command without such a block must succeed.
"""

import asyncio
import re
import shlex
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from page_reader.blocks import Step, commands_of

SECONDS = 30.0


class Reader:
    """Follows the steps of one page."""

    def __init__(self, home: Any, stack: AsyncExitStack, *, ports: dict[str, str]) -> None:
        self._home = home
        self._stack = stack
        self._ports = ports
        self._running: list[tuple[str, Any]] = []

    async def follow(self, steps: list[Step]) -> None:
        """Take every step. Raises AssertionError with the command that did not do what the page says."""
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            if step.reason is not None or step.language == "text":
                continue
            expected = after.text if after is not None and after.language == "text" and not after.mark else None
            await self._take(step, None if expected is None else self._with_ports(expected))

    async def _take(self, step: Step, expected: str | None) -> None:
        if step.title:
            self._write(step)
        elif step.language == "bash":
            await self._run_block(step, expected)
        elif step.mark.startswith("stop "):
            await self._stop(step.mark.removeprefix("stop "))
        elif step.mark.startswith("wait until "):
            await self._line(self._running[-1][1], _quoted(step.mark))
        else:
            raise AssertionError(f"nobody knows how to take this step: {step}")

    def _write(self, step: Step) -> None:
        (self._home.directory / step.title).write_text(self._with_ports(step.text))

    async def _run_block(self, step: Step, expected: str | None) -> None:
        commands = [self._with_ports(command) for command in commands_of(step.text)]
        if "without Docker" in step.mark:
            commands = self._without_docker(commands)
        *first, last = commands
        for command in first:
            await self._succeed(command)
        if "keeps running until" not in step.mark:
            await self._succeed(last, expected)
            return
        running = await self._stack.enter_async_context(self._home.running("-c", f"exec {last}"))
        self._running.append((last, running))
        await self._line(running, self._with_ports(_quoted(step.mark)))
        if expected is not None:
            assert matches(expected, "\n".join(running.lines)), f"{last} printed:\n" + "\n".join(running.lines)

    async def _succeed(self, command: str, expected: str | None = None) -> None:
        end = time.monotonic() + SECONDS
        while True:
            process = await self._home.spawn("-c", command)
            output, errors = [data.decode() for data in await process.communicate()]
            if process.returncode == 0 and (expected is None or matches(expected, output)):
                return
            # What a model or a worker has not done yet is not there yet; anything else is wrong at once.
            is_wrong = time.monotonic() > end or not _may_come(command, process.returncode, expected)
            assert not is_wrong, self._report(command, output + errors, expected)
            await asyncio.sleep(0.2)

    def _report(self, command: str, output: str, expected: str | None) -> str:
        running = "".join(f"\n$ {one}\n" + "\n".join(process.lines) for one, process in self._running)
        return f"$ {command}\n{output}\nexpected:\n{expected}\nrunning:{running}"

    async def _line(self, running: Any, part: str) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await running.line(part)
        except TimeoutError:
            raise AssertionError(f"{part!r} was not printed:\n" + "\n".join(running.lines)) from None

    async def _stop(self, beginning: str) -> None:
        [(command, running)] = [one for one in self._running if one[0].startswith(beginning)]
        running.signal(signal.SIGINT)
        assert await running.exit_code() == 0, "\n".join(running.lines)
        self._running.remove((command, running))

    def _without_docker(self, commands: list[str]) -> list[str]:
        """`docker build` is checked against the Dockerfile on the page, `docker run` runs its command here."""
        lines = (self._home.directory / "Dockerfile").read_text().splitlines()
        instructions = dict(line.split(" ", 1) for line in lines)
        assert instructions["FROM"] == "meshhost"
        name, _ = instructions["COPY"].split()
        assert (self._home.directory / name).exists()
        [build, run] = commands
        tag = shlex.split(build)[shlex.split(build).index("--tag") + 1]
        assert build.startswith("docker build ")
        assert run.startswith("docker run ")
        assert run.endswith(f" {tag}")
        variables = re.findall(r"--env (\w+=(?:\"[^\"]*\"|\S+))", run)
        command = instructions["CMD"].strip("[]").replace('"', "").replace(",", "")
        return [f"env {' '.join(variables)} {command}"]

    def _with_ports(self, text: str) -> str:
        for known, own in self._ports.items():
            text = re.sub(rf"\b{known}\b", own, text)
        return text


def matches(expected: str, output: str) -> bool:
    """Whether each line of `expected` is in the output, in this order; `…` is anything, and runs of spaces count as one."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    at = 0
    for line in expected.strip("\n").splitlines():
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in line.split("…")))
        at = next((number + 1 for number, one in enumerate(lines[at:], at) if pattern.search(one)), 0)
        if at == 0:
            return False
    return True


def _may_come(command: str, code: int | None, expected: str | None) -> bool:
    waits_for_file = command.startswith("meshhost storage cat") and code == 1
    return waits_for_file or (code == 0 and expected is not None)


def _quoted(mark: str) -> str:
    found = re.search(r'"(.*)"', mark)
    assert found is not None, mark
    return found[1]


def path_with_our_commands(path: str) -> str:
    """PATH so that `meshhost` and `python` are those of this environment."""
    return f"{Path(sys.executable).parent}:{path}"
