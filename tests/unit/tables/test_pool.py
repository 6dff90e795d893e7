"""Who gets a process for its tables, and what happens to requests when one ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from meshhost.errors import LimitExceededError, RequestTimeoutError, RoomError
from meshhost.identity.tenant import TenantId
from meshhost.tables.limits import TableLimits
from meshhost.tables.pool import WorkerPool
from meshhost.tables.process import WorkerGoneError
from meshhost.testing.clock import FakeClock

LIMITS = TableLimits(processes=2, concurrent=2, waiting=3, turn_seconds=2.0, idle_seconds=60.0, wait_seconds=5.0)


class Process:
    """Does each request when the test says so."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.is_gone = False
        self.pid = 1
        self.calls: list[tuple[str, asyncio.Future[Any]]] = []
        self.done: list[str] = []

    async def call(self, op: str, body: Any, data: bytes, *, seconds: float, is_read: bool) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.calls.append((op, answer))
        result = await answer
        self.done.append(op)
        return result

    def answer(self, *, error: Exception | None = None) -> None:
        _, answer = self.calls.pop(0)
        if error is None:
            answer.set_result(({}, b""))
        else:
            answer.set_exception(error)

    def kill(self) -> None:
        self.is_gone = True
        for _, answer in self.calls:
            if not answer.done():
                answer.set_exception(WorkerGoneError())
        self.calls.clear()


class Tried:
    """A pool whose processes are doubles."""

    def __init__(self, limits: TableLimits = LIMITS) -> None:
        self.clock = FakeClock()
        self.processes: list[Process] = []
        self.pool = WorkerPool(self._start, limits, clock=self.clock)

    def _start(self, tenant: TenantId, tasks: Any) -> Any:
        process = Process(tenant)
        self.processes.append(process)
        return process

    def run(self, tenant: str, op: str = "search", *, is_read: bool = True) -> "asyncio.Task[Any]":
        coroutine = self.pool.run(TenantId(tenant), op, {}, seconds=30, is_read=is_read)
        return asyncio.get_running_loop().create_task(coroutine)

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def tried() -> AsyncIterator[Tried]:
    tried = Tried()
    async with tried.pool:
        yield tried


async def test_each_tenant_has_one_process(tried: Tried) -> None:
    requests = [tried.run("a"), tried.run("a"), tried.run("b")]
    await tried.settled()
    assert [process.tenant for process in tried.processes] == ["a", "b"]
    for process in tried.processes:
        for _ in list(process.calls):
            process.answer()
    await asyncio.gather(*requests)


async def test_requests_beyond_the_bound_wait_and_too_many_are_refused(tried: Tried) -> None:
    requests = [tried.run("a", f"{number}") for number in range(5)]
    await tried.settled()
    [process] = tried.processes
    assert [op for op, _ in process.calls] == ["0", "1"]
    with pytest.raises(LimitExceededError, match="3 requests of the tenant wait"):
        await tried.run("a")
    for _ in range(5):
        process.answer()
        await tried.settled()
    await asyncio.gather(*requests)
    assert process.done == ["0", "1", "2", "3", "4"]


async def test_an_idle_tenant_makes_room_for_another_the_longest_idle_first(tried: Tried) -> None:
    for tenant in ("a", "b"):
        request = tried.run(tenant)
        await tried.settled()
        tried.processes[-1].answer()
        await request
        await tried.clock.advance(1)
    request = tried.run("c")
    await tried.settled()
    assert [process.is_gone for process in tried.processes] == [True, False, False]
    tried.processes[-1].answer()
    await request


async def test_a_tenant_that_had_its_turn_makes_room_for_one_that_waits(tried: Tried) -> None:
    busy = [tried.run(tenant, str(number)) for tenant in ("a", "b") for number in range(4)]
    await tried.settled()
    a, b = tried.processes
    late = tried.run("c")
    await tried.settled()
    a.answer()  # its turn is not over: another one of its own begins
    await tried.settled()
    assert [op for op, _ in a.calls] == ["1", "2"]
    await tried.clock.advance(3)
    a.answer()
    a.answer()
    await tried.settled()
    assert a.is_gone
    c = tried.processes[2]
    assert (c.tenant, len(c.calls)) == ("c", 1)
    c.answer()
    await late
    await tried.settled()
    # Then it is the turn of `a` again, which has one more.
    again = tried.processes[3]
    assert (again.tenant, [op for op, _ in again.calls]) == ("a", ["3"])
    again.answer()
    for _ in range(4):
        b.answer()
        await tried.settled()
    await asyncio.gather(*busy)


async def test_one_that_waits_too_long_is_refused() -> None:
    tried = Tried(replace(LIMITS, wait_seconds=0.01))
    async with tried.pool:
        busy = [tried.run(tenant) for tenant in ("a", "b")]
        await tried.settled()
        with pytest.raises(LimitExceededError, match="the tables are busy"):
            await tried.run("c")
        for process in tried.processes:
            process.answer()
        await asyncio.gather(*busy)


async def test_a_read_that_a_dying_process_interrupts_is_done_once_more(tried: Tried) -> None:
    request = tried.run("a")
    await tried.settled()
    tried.processes[0].kill()
    await tried.settled()
    tried.processes[1].answer()
    assert await request == ({}, b"")
    request = tried.run("a")
    await tried.settled()
    tried.processes[1].kill()
    await tried.settled()
    tried.processes[2].kill()
    with pytest.raises(RequestTimeoutError, match="the process for tables ended"):
        await request


async def test_a_write_that_a_dying_process_interrupts_is_not_repeated(tried: Tried) -> None:
    request = tried.run("a", "insert", is_read=False)
    await tried.settled()
    tried.processes[0].kill()
    with pytest.raises(RequestTimeoutError, match="look whether it was done"):
        await request
    assert len(tried.processes) == 1


async def test_a_process_out_of_memory_says_so(tried: Tried) -> None:
    request = tried.run("a")
    await tried.settled()
    tried.processes[0].answer(error=WorkerGoneError(out_of_memory=True))
    with pytest.raises(LimitExceededError, match="over 1024 MB of memory"):
        await request


async def test_a_time_out_says_what_to_do(tried: Tried) -> None:
    for is_read, text in ((True, "create an index$"), (False, "It may have been done, never in part")):
        request = tried.run("a", is_read=is_read)
        await tried.settled()
        tried.processes[0].answer(error=TimeoutError())
        with pytest.raises(RequestTimeoutError, match=text):
            await request


async def test_who_gives_up_a_read_ends_it_and_a_write_that_began_goes_on(tried: Tried) -> None:
    for is_read, ends in ((True, True), (False, False)):
        request = tried.run("a", "op", is_read=is_read)
        await tried.settled()
        process = tried.processes[0]
        request.cancel()
        await tried.settled()
        _, answer = process.calls[0]
        assert answer.cancelled() is ends
        process.calls.clear()
        if not ends:
            answer.set_result(({}, b""))
        await tried.settled()
    # Its places are free again.
    requests = [tried.run("a"), tried.run("a")]
    await tried.settled()
    assert len(process.calls) == 2
    process.answer()
    process.answer()
    await asyncio.gather(*requests)


async def test_a_write_that_waits_is_given_up(tried: Tried) -> None:
    busy = [tried.run("a"), tried.run("a")]
    await tried.settled()
    waiting = tried.run("a", "insert", is_read=False)
    await tried.settled()
    waiting.cancel()
    await tried.settled()
    process = tried.processes[0]
    process.answer()
    process.answer()
    await asyncio.gather(*busy)
    await tried.settled()
    assert process.calls == []


async def test_a_process_that_is_idle_for_long_ends(tried: Tried) -> None:
    request = tried.run("a")
    await tried.settled()
    tried.processes[0].answer()
    await request
    await tried.clock.advance(30)
    assert not tried.processes[0].is_gone
    await tried.clock.advance(40)
    assert tried.processes[0].is_gone
    assert tried.pool.processes == {}


async def test_a_process_is_ended_on_demand(tried: Tried) -> None:
    request = tried.run("a")
    await tried.settled()
    tried.pool.end_process(TenantId("nobody"))
    tried.pool.end_process(TenantId("a"))
    await tried.settled()
    assert len(tried.processes) == 2  # the read is done by the next one
    tried.processes[1].answer()
    await request


async def test_requests_end_with_the_pool() -> None:
    tried = Tried()
    async with tried.pool:
        request = tried.run("a", "insert", is_read=False)
        await tried.settled()
    with pytest.raises(RoomError):
        await request
