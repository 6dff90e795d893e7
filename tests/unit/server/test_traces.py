"""Which traces are recorded, how spans wait to be written, and what is noted of messages."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from meshhost.errors import RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.traces.recorder import TraceBounds, TraceRecorder
from meshhost.server.traces.sampler import Sampler
from meshhost.stores.sqlite.traces import SqliteTraceStore
from meshhost.stores.traces.contract import TraceKey, TraceQuery
from meshhost.testing.clock import FakeClock
from meshhost.traces.span import Span

ROOM = RoomKey(TenantId("acme"), "room")
RIVAL = RoomKey(TenantId("rival"), "room")


def span(number: int = 0, trace: int = 0) -> Span:
    return Span(f"{trace:032x}", f"{number:016x}", "", "work", 1000.0, 1.0)


class CountingStore(SqliteTraceStore):
    """Counts the batches, and fails when it is told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.batches = 0
        self.is_failing = False

    async def add(self, batch: Mapping[TraceKey, Sequence[Span]], *, now: float) -> None:
        self.batches += 1
        if self.is_failing:
            raise OSError("disk gone")
        await super().add(batch, now=now)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    made = CountingStore(tmp_path / "traces.sqlite")
    await made.open()
    yield made
    await made.close()


async def test_a_rate_is_each_tenants_own() -> None:
    clock = FakeClock()
    sampler = Sampler(10, clock=clock)
    assert (sampler.take("acme", 25), sampler.take("acme")) == (10, 0)
    assert sampler.take("rival", 3) == 3
    await clock.advance(0.5)
    assert sampler.take("acme", 25) == 5
    await clock.advance(100)
    assert sampler.take("acme", 25) == 10


def test_no_rate_records_nothing() -> None:
    assert Sampler(0).take("acme") == 0


async def test_a_low_rate_lets_one_pass_now_and_then() -> None:
    clock = FakeClock()
    sampler = Sampler(0.5, clock=clock)
    taken = []
    for _ in range(4):
        taken.append(sampler.take("acme"))
        await clock.advance(1)
    assert taken == [1, 0, 1, 0]


async def test_tenants_that_are_quiet_are_forgotten() -> None:
    clock = FakeClock()
    sampler = Sampler(10, clock=clock)
    for number in range(10_000):
        sampler.take(f"t{number}")
    await clock.advance(10)
    assert sampler.take("new", 100) == 10
    assert sampler.take("new") == 0


async def test_spans_are_written_together_and_seen_by_the_next_reader(store: CountingStore) -> None:
    recorder = TraceRecorder(store)
    for number in range(50):
        assert recorder.add(ROOM, [span(number, trace=number % 5)]) == 1
    page = await recorder.find(ROOM, TraceQuery())
    assert [each.spans for each in page.traces] == [10] * 5
    assert store.batches == 1
    await recorder.write()
    assert store.batches == 1
    got = await recorder.get(TraceKey(ROOM, span(trace=3).trace))
    assert got is not None
    assert len(got[1]) == 10


async def test_a_tenant_that_reports_too_much_loses_its_own_spans_only(store: CountingStore) -> None:
    counts: Counter[str] = Counter()
    bounds = TraceBounds(of_tenant=10 * span().size, of_all=12 * span().size, at_least=5 * span().size)
    recorder = TraceRecorder(store, bounds=bounds, count=lambda outcome, spans: counts.update({outcome: spans}))
    assert recorder.add(ROOM, [span(number) for number in range(20)]) == 10
    assert recorder.add(RIVAL, [span(number) for number in range(20)]) == 5
    assert counts == {"taken": 15, "dropped": 25}
    await recorder.write()
    assert recorder.add(ROOM, [span()]) == 1


async def test_a_store_that_fails_loses_its_batch_and_nothing_else(
    store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    counts: Counter[str] = Counter()
    recorder = TraceRecorder(store, count=lambda outcome, spans: counts.update({outcome: spans}))
    store.is_failing = True
    for _ in range(3):
        recorder.add(ROOM, [span()])
        await recorder.write()
    assert counts["lost"] == 3
    assert [record.message for record in caplog.records] == ["traces are not stored"]
    store.is_failing = False
    recorder.add(ROOM, [span()])
    assert len((await recorder.find(ROOM, TraceQuery())).traces) == 1


async def test_the_background_writes_what_came_and_lets_the_store_tidy(store: CountingStore) -> None:
    clock = FakeClock()
    recorder = TraceRecorder(store, clock=clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(recorder.run())
        recorder.add(ROOM, [span()])
        async with asyncio.timeout(10):
            while store.batches < 1:
                await clock.advance(1)
                await asyncio.sleep(0.001)
            await clock.advance(600)
            while store.batches < 2:
                await clock.advance(1)
                await asyncio.sleep(0.001)
        task.cancel()
    page = await store.find(ROOM, TraceQuery())
    assert len(page.traces) == 1


async def test_what_is_deleted_is_not_written_later(store: CountingStore) -> None:
    recorder = TraceRecorder(store)
    recorder.add(ROOM, [span()])
    await recorder.write()
    recorder.add(ROOM, [span(1, trace=1)])
    recorder.add(RIVAL, [span()])
    await recorder.delete_all(ROOM.tenant, "room")
    assert (await recorder.find(ROOM, TraceQuery())).traces == []
    assert len((await recorder.find(RIVAL, TraceQuery())).traces) == 1


async def test_without_a_store_nothing_is_recorded() -> None:
    recorder = TraceRecorder(None)
    assert not recorder.is_recording
    assert recorder.add(ROOM, [span()]) == 0
    await recorder.write()
    await recorder.delete_all(ROOM.tenant)
    assert (await recorder.find(ROOM, TraceQuery())).traces == ()
    assert await recorder.get(TraceKey(ROOM, span().trace)) is None


async def test_a_store_that_is_closed_is_a_failing_one(store: CountingStore) -> None:
    recorder = TraceRecorder(store)
    await store.close()
    recorder.add(ROOM, [span()])
    await recorder.write()
    with pytest.raises(RoomError, match="not open"):
        await recorder.find(ROOM, TraceQuery())
