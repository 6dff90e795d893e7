"""A worker of fifty messages at once, with real processes: stopped and killed, it loses nothing, and keys keep their order."""

import asyncio
import os
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MESSAGES, CONCURRENCY = 20_000, 50
# One message in five has a key.
KEYS = 40

SENDER = f"""
import asyncio, meshhost
from meshhost.room.services.queue_values import NewMessage

async def main():
    async with meshhost.connect("queue-test") as room:
        for start in range(0, {MESSAGES}, 1000):
            numbers = range(start, start + 1000)
            await room.queues.send_many(
                "test", [NewMessage(n, key=f"key-{{n // 5 % {KEYS}}}" if n % 5 == 0 else None) for n in numbers]
            )

asyncio.run(main())
"""

WORKER = f"""
import asyncio, os
from meshhost.agents.function_worker import FunctionWorker
from meshhost.api.services import ServiceHost

host = ServiceHost()
log = os.open("work.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def work(number: int):
    os.write(log, b"begin %d\\n" % number)
    await asyncio.sleep(0)
    os.write(log, b"end %d\\n" % number)

@host.path("/worker", identity="worker")
class Fifty(FunctionWorker):
    def __init__(self):
        super().__init__(queue="test", function=work, concurrency={CONCURRENCY})

asyncio.run(host.run())
"""


def steps_in(log: Path) -> list[tuple[str, int]]:
    """What the workers noted, as far as it is whole lines."""
    text = log.read_text() if log.exists() else ""
    return [
        (what, int(number))
        for what, number in (line.split() for line in text.splitlines(keepends=True) if line[-1] == "\n")
    ]


async def until_done(log: Path, count: int) -> None:
    async with asyncio.timeout(120):
        while sum(what == "end" for what, _ in steps_in(log)) < count:  # noqa: ASYNC110 - no event reports what is in a file
            await asyncio.sleep(0.05)


async def test_nothing_is_lost_and_no_key_overlaps_or_changes_its_order(home: Any) -> None:
    (home.directory / "sender.py").write_text(SENDER)
    (home.directory / "worker.py").write_text(WORKER)
    log = home.directory / "work.log"
    async with home.room_server():
        await home.run("sender.py")
        assert (await home.depth())["size"] == MESSAGES

        async with home.service("worker.py") as service:
            await until_done(log, 3000)
            service.signal(signal.SIGTERM)
            assert await service.exit_code() == 0
        # What was begun is finished, or was handed back untouched: nothing is held, and nothing was done twice.
        depth = await home.depth()
        done = Counter(number for what, number in steps_in(log) if what == "end")
        assert (depth["leased"], depth["dead"]) == (0, 0)
        assert depth["ready"] + depth["blocked"] == MESSAGES - len(done)
        assert max(done.values()) == 1

        async with home.service("worker.py") as service:
            await until_done(log, len(done) + 3000)
            for child in children_of(service.process.pid):
                os.kill(child, signal.SIGKILL)
            service.signal(signal.SIGKILL)
            await service.exit_code()

        async with home.service("worker.py"):
            await home.until_settled()

    steps = steps_in(log)
    done = Counter(number for what, number in steps if what == "end")
    assert set(done) == set(range(MESSAGES))
    # Those that the killed worker had done, and not acked yet; it asks for the next ones while it acks.
    assert sum(done.values()) - MESSAGES <= 3 * CONCURRENCY
    by_key: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for what, number in steps:
        if number % 5 == 0:
            by_key[number // 5 % KEYS].append((what, number))
    for of_key in by_key.values():
        check_order(of_key)


def check_order(steps: list[tuple[str, int]]) -> None:
    """Messages of one key began in their order, each after the one before it had ended; one whose worker died begins again."""
    present = -1
    has_ended = True
    for what, number in steps:
        if what == "begin":
            assert number == present or (has_ended and number > present)
            present, has_ended = number, False
        else:
            assert number == present
            has_ended = True


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - proc, not a document
        return [int(child) for child in file.read().split()]
