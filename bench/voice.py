"""Measures voice: 20 calls at once in one host, with a realtime model and with a cascade, both scripted, side by side.

Callers, room server, provider and host are processes of their own; sound travels by messages of the room, the realtime model is
asked through the room's gateway. Each caller speaks for a second, listens to an answer of three, and speaks again. Shown are

- *late frames*: a frame is due 20 ms after the one before it, counted from the first of its answer; late if it arrives more
  than a frame after it is due, without any jitter buffer, and the 99th percentile of how late frames are;
- how late the callers' own timers are: no frame can be on time more often than those, whatever else the machine does;
- *end of speech → first sound*: from the caller's last loud frame, so with the 200 ms of silence that end a turn in both;
- CPU and memory of the host for each call.

`python -m bench voice` for the table; `--calls N` and `--seconds N` in `main`'s arguments for other sizes.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.table import show
from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.room.client import RoomClient
from meshhost.transport.websocket_client import WebSocketClientProtocol
from meshhost.voice import OutgoingCall, Sound

CALLS = 20
SECONDS = 30.0
RATE = 24_000
_FRAME = 0.02
_SPEECH_FRAMES = 50
_ANSWER_FRAMES = 150
_ANSWER_SECONDS = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
LOUD = Sound(array("h", ([6_000] * 20 + [-6_000] * 20) * 12).tobytes(), RATE)
QUIET = Sound(bytes(RATE // 50 * 2), RATE)


@dataclass
class Figures:
    """What the callers of one host measured; times in seconds."""

    lateness: list[float] = field(default_factory=list)
    to_first_sound: list[float] = field(default_factory=list)
    timers: list[float] = field(default_factory=list)
    unanswered: int = 0
    cpu_per_call: float = 0.0
    memory_per_call: float = 0.0

    def rows(self) -> list[tuple[str, float]]:
        """Text and figure of each row."""
        late = sum(each > _FRAME for each in self.lateness)
        return [
            ("frames that were heard", float(len(self.lateness))),
            ("late frames, %", 100 * late / max(1, len(self.lateness))),
            ("lateness of frames, p99, ms", 1000 * _percentile(self.lateness, 99)),
            ("the callers' own timers of 20 ms: late by, p99, ms", 1000 * _percentile(self.timers, 99)),
            ("end of speech → first sound, p50, ms", 1000 * _percentile(self.to_first_sound, 50)),
            ("end of speech → first sound, p99, ms", 1000 * _percentile(self.to_first_sound, 99)),
            ("turns that were not answered", float(self.unanswered)),
            ("CPU of the host for each call, % of a core", 100 * self.cpu_per_call),
            ("memory of the host for each call, KiB", self.memory_per_call / 1024),
        ]


class Caller:
    """One call: speaks, listens, speaks again."""

    def __init__(self, call: OutgoingCall, figures: Figures) -> None:
        self._call = call
        self._figures = figures
        self._last_loud = 0.0
        self._first = 0.0
        self._heard = 0
        self._answered = asyncio.Event()

    async def run(self, until: float, delay: float) -> None:
        """Talk until this time."""
        listening = asyncio.create_task(self._listen())
        try:
            await asyncio.sleep(delay)
            while time.perf_counter() < until:
                await self._turn()
        finally:
            await self._call.hang_up()
            await listening

    async def _turn(self) -> None:
        self._heard, self._first = 0, 0.0
        self._answered.clear()
        due = time.perf_counter()
        frames, begun = 0, due
        while not self._answered.is_set():
            is_loud = frames < _SPEECH_FRAMES
            await self._call.send(LOUD if is_loud else QUIET)
            if is_loud:
                self._last_loud = time.perf_counter()
            frames, due = frames + 1, due + _FRAME
            if due - begun > _ANSWER_SECONDS:
                self._figures.unanswered += 1
                return
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._figures.timers.append(max(0.0, time.perf_counter() - due))

    async def _listen(self) -> None:
        async for happened in self._call:
            if not isinstance(happened, Sound):
                continue
            now = time.perf_counter()
            if not self._first:
                self._first = now
                self._figures.to_first_sound.append(now - self._last_loud)
            for _ in range(round(happened.ms / 20)):
                due = self._first + self._heard * _FRAME
                self._figures.lateness.append(max(0.0, now - due))
                self._heard += 1
            if self._heard >= _ANSWER_FRAMES:
                self._answered.set()


async def main(*, calls: int = CALLS, seconds: float = SECONDS, as_json: bool = False) -> None:
    """Measure and print a table, or JSON."""
    found = {kind: await _measure(kind, calls, seconds) for kind in ("realtime", "cascade")}
    rows = {kind: figures.rows() for kind, figures in found.items()}
    if as_json:
        print(json.dumps({kind: dict(own) for kind, own in rows.items()}))
        return
    both = zip(rows["realtime"], rows["cascade"], strict=True)
    show(
        f"Voice: {calls} calls at once in one host, for {seconds:g} s",
        ["realtime, scripted", "cascade, scripted"],
        [(what, one, other) for (what, one), (_, other) in both],
        note="Callers, room server, provider and host share the machine.",
    )


async def _measure(kind: str, calls: int, seconds: float) -> Figures:
    figures = Figures()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        _, provider = await stack.enter_async_context(_part("provider"))
        _, server = await stack.enter_async_context(_part("server", provider["url"], folder))
        pid, _ = await stack.enter_async_context(_part("host", server["url"], server["bot"], kind, str(calls)))
        rooms = [await stack.enter_async_context(_client(server, f"caller-{number}")) for number in range(calls)]
        # The first call loads what is loaded once.
        await _talk(rooms[:1], Figures(), 3.0)
        idle = _memory(pid)
        cpu, begin = _cpu(pid), time.perf_counter()
        talking = asyncio.create_task(_talk(rooms, figures, seconds))
        await asyncio.sleep(seconds * 0.9)
        figures.cpu_per_call = (_cpu(pid) - cpu) / (time.perf_counter() - begin) / calls
        figures.memory_per_call = (_memory(pid) - idle) / calls
        await talking
    return figures


async def _talk(rooms: Sequence[RoomClient], figures: Figures, seconds: float) -> None:
    until = time.perf_counter() + seconds
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number, room in enumerate(rooms):
            bot = next(each for each in room.messaging.remote_participants if each.get_attribute("supports_voice"))
            call = await stack.enter_async_context(OutgoingCall(room=room, agent=bot, rate=RATE))
            # Spread over the length of a turn, as callers are.
            group.create_task(Caller(call, figures).run(until, delay=4.2 * number / len(rooms)))


@asynccontextmanager
async def _client(server: dict[str, Any], name: str) -> AsyncIterator[RoomClient]:
    grants = [
        ParticipantGrant(name="room", scope="room"),
        ParticipantGrant(name="role", scope="user"),
        ParticipantGrant(name="api", scope=ApiScope.full()),
    ]
    token = ParticipantToken(name=name, grants=grants).to_jwt(api_key=server["api_key"])
    async with RoomClient(protocol=WebSocketClientProtocol(url=server["url"], token=token)) as room:
        await room.messaging.enable()
        yield room


@asynccontextmanager
async def _part(*arguments: str) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """One process; yields its id and what it said first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.programs.voice_parts",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        yield process.pid, json.loads(line)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int) -> float:
    """Bytes of memory of a process."""
    return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    asyncio.run(main())
