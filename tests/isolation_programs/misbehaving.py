"""Agents that misbehave in one way each, run in a task or in a process."""

import asyncio
import ctypes
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger("misbehaving")
IMPORTED_BY = os.getpid()


class Normal:
    """Answers `?` messages with what it knows of itself."""

    def __init__(self, call: Any = None) -> None:
        self.call = call
        self.room: Any = None

    async def start(self, *, room: Any) -> None:
        self.room, self.trace = room, current_trace()
        room.messaging.on("message", self.on_message)
        await room.messaging.enable()
        logger.info("normal agent started", extra={"topic": self.call.arguments.get("topic")})

    async def on_message(self, message: Any) -> None:
        if message.type == "?":
            sender = self.room.messaging.get_participant(message.from_participant_id)
            answer = {
                "pid": os.getpid(),
                "call": self.call.call_id,
                "arguments": dict(self.call.arguments),
                "token": self.room.protocol.token,
                "trace": self.trace,
                "imported_by": IMPORTED_BY,
                "random": random.random(),
                "descriptors": descriptors(),
                "environment": dict(os.environ) | {"proc": environment_of_process()},
                "user": (os.getuid(), os.getgid(), os.getgroups()),
            }
            await self.room.messaging.send_message(to=sender, type="!", message=answer)

    async def stop(self) -> None:
        logger.info("normal agent stopped")


def environment_of_process() -> str:
    """The one that it began with, whatever it changed since."""
    return Path("/proc/self/environ").read_text()


def descriptors() -> list[str]:
    """What is open in this process, without numbers."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()).partition(":[")[0])
        except OSError:  # that of the listing itself
            continue
    return sorted(found)


def current_trace() -> str:
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


class CrashesInConstructor(Normal):
    def __init__(self) -> None:
        raise ValueError("broken by construction")


class CrashesInStart(Normal):
    async def start(self, *, room: Any) -> None:
        raise LookupError("nothing to start with")


class CrashesLater(Normal):
    async def wait_ended(self) -> None:
        raise ZeroDivisionError("one by none")


class Panic(BaseException):
    """As extensions written in Rust raise it."""


class ExitsInConstructor(Normal):
    def __init__(self) -> None:
        sys.exit(3)


class ExitsInStart(Normal):
    async def start(self, *, room: Any) -> None:
        raise KeyboardInterrupt


class ExitsInAnAwaitedTask(Normal):
    async def wait_ended(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(exits())


class ExitsInATask(Normal):
    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        self.task = asyncio.create_task(exits())


class ExitsInAHandler(Normal):
    async def on_message(self, message: Any) -> None:
        sys.exit(3)


class ExitsInAPlainHandler(Normal):
    def on_message(self, message: Any) -> None:  # type: ignore[override]
        sys.exit(3)


class Panics(Normal):
    async def wait_ended(self) -> None:
        raise Panic("boom")


class CancelsItself(Normal):
    async def wait_ended(self) -> None:
        raise asyncio.CancelledError


class ExitsWhenItLeaves(Normal):
    """And what it does now cannot be asked."""

    @property
    def activity(self) -> str:
        sys.exit(3)

    async def stop(self) -> None:
        await super().stop()
        sys.exit(3)


async def exits() -> None:
    sys.exit(3)


class LeavesAThread(Normal):
    """It ends, and what it has begun in a thread does not."""

    async def wait_ended(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
        await asyncio.sleep(0.1)


class NeverStarts(Normal):
    async def start(self, *, room: Any) -> None:
        logger.info("starts for ever")
        await asyncio.Event().wait()


class Stubborn(Normal):
    """`release` of its class lets the last one made go."""

    release: asyncio.Event

    def __init__(self, call: Any = None) -> None:
        super().__init__(call)
        type(self).release = asyncio.Event()

    async def persist(self) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue


class IgnoresCancellation(Stubborn):
    async def wait_ended(self) -> None:
        await self.persist()


class HangsInStop(Stubborn):
    async def stop(self) -> None:
        await self.persist()


class TellsWhatItDoes(Normal):
    """And takes a while to stop, until it is cut short."""

    activity = "counting sheep"

    async def stop(self) -> None:
        await asyncio.sleep(1.0)


class TellsAndBlocks(Normal):
    activity = "counting sheep"

    async def wait_ended(self) -> None:
        await asyncio.sleep(0.5)  # it is asked meanwhile
        while True:
            time.sleep(1)  # noqa: ASYNC251 - that is the point


class BlocksForEver(Normal):
    async def wait_ended(self) -> None:
        while True:
            time.sleep(1)  # noqa: ASYNC251 - that is the point


class HoldsTheInterpreter(Normal):
    """Nothing of Python runs in its process any more, no thread either."""

    async def wait_ended(self) -> None:
        await asyncio.sleep(0.3)  # until the host knows that it runs: then it is watched
        while True:
            ctypes.PyDLL(None).sleep(3600)


class EatsMemory(Normal):
    async def wait_ended(self) -> None:
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1024) * 1024 * 10))
            await asyncio.sleep(0.02)


class HasChildren(Normal):
    """Starts a child and a grandchild by exec and one by fork; tells their ids in the log."""

    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        script = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - returns at once
        pids = [child.pid, int(child.stdout.readline())]
        if not (forked := os.fork()):
            time.sleep(600)  # noqa: ASYNC251 - in a process without a loop
            os._exit(0)
        logger.info("has children", extra={"pids": ",".join(map(str, [*pids, forked]))})


class LeavesItsChildren(HasChildren):
    async def wait_ended(self) -> None:
        return


class CallsExit(Normal):
    async def wait_ended(self) -> None:
        os._exit(3)


class RaisesSystemExit(Normal):
    async def wait_ended(self) -> None:
        raise SystemExit(7)


class KillsItself(Normal):
    async def wait_ended(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class SpeaksNonsense(Normal):
    async def wait_ended(self) -> None:
        role().__dict__["_channel"].__dict__["_sock"].sendall(b"\xff" * 100)
        await asyncio.Event().wait()


class SpeaksOutOfTurn(Normal):
    async def wait_ended(self) -> None:
        from meshhost.hosting.processes.messages import Ping

        role().__dict__["_channel"].send(Ping(1))
        await asyncio.Event().wait()


def role() -> Any:
    from meshhost.hosting.processes.child.roles import current_role

    return current_role()


class Segfaults(Normal):
    async def wait_ended(self) -> None:
        ctypes.string_at(0)


class LogsAnError(Normal):
    async def start(self, *, room: Any) -> None:
        await super().start(room=room)
        try:
            raise KeyError("lost")
        except KeyError:
            logger.exception("could not find it", extra={"place": "cellar", "odd": object()})
        logging.getLogger("misbehaving").debug("too quiet to be heard")


ALL = [cls for cls in list(globals().values()) if isinstance(cls, type) and issubclass(cls, Normal)]
