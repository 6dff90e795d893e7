"""The store of traces: what is kept, by what it is found, and how it is bounded and shared."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshhost.errors import InvalidRequestError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.sqlite.traces import SqliteTraceStore
from meshhost.stores.traces.contract import TraceKey, TraceLimits, TraceQuery
from meshhost.traces.span import Span

ROOM = RoomKey(TenantId("acme"), "room")
DAY = 86_400.0


def key(number: int = 0, room: RoomKey = ROOM) -> TraceKey:
    return TraceKey(room, f"{number:032x}")


def span(number: int = 0, **changes: Any) -> Span:
    made = Span("", f"{number:016x}", "", "send jobs", 1000.0, 1.0)
    return replace(made, **changes)


def about(queue: str, message: str) -> dict[str, Any]:
    return {"attributes": {"messaging.destination.name": queue, "messaging.message.id": message}}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteTraceStore]:
    made = SqliteTraceStore(tmp_path / "traces.sqlite")
    await made.open()
    yield made
    await made.close()


async def found(store: SqliteTraceStore, room: RoomKey = ROOM, **query: Any) -> list[int]:
    page = await store.find(room, TraceQuery(**query))
    return [int(each.trace, 16) for each in page.traces]


async def test_spans_of_a_trace_that_come_apart_are_together(store: SqliteTraceStore) -> None:
    await store.add({key(): [span(1, **about("jobs", "7"), begin=1001.0, name="lease jobs", seconds=3.0)]}, now=1.0)
    await store.add({key(): [span(2, **about("jobs", "7")), span(3, agent="ann", begin=1002.0, error="no")]}, now=2.0)
    got = await store.get(key())
    assert got is not None
    summary, spans = got
    assert [each.id for each in spans] == [f"{number:016x}" for number in (2, 1, 3)]
    assert (summary.name, summary.began, summary.ended) == ("send jobs", 1000.0, 1004.0)
    assert (summary.queues, summary.messages, summary.agents) == (["jobs"], ["7"], ["ann"])
    assert (summary.is_failed, summary.spans, summary.dropped) == (True, 3, 0)
    assert list((await store.find(ROOM, TraceQuery())).traces) == [summary]


async def test_traces_survive_and_are_told_from_those_of_other_rooms_and_tenants(tmp_path: Path) -> None:
    path, rival = tmp_path / "traces.sqlite", RoomKey(TenantId("rival"), "room")
    store = SqliteTraceStore(path)
    assert repr(store) == f"<SqliteTraceStore {str(path)!r} open=False>"
    with pytest.raises(RoomError, match="the trace store is not open"):
        await store.add({}, now=1.0)
    await store.open()
    await store.add(
        {key(1): [span()], key(2, rival): [span()], key(3, RoomKey(ROOM.tenant, "other")): [span()]}, now=1.0
    )
    await store.close()
    store = SqliteTraceStore(path)
    await store.open()
    assert await found(store) == [1]
    assert await found(store, rival) == [2]
    assert await store.get(key(2)) is None
    await store.close()


async def test_traces_are_found_by_what_they_are_about(store: SqliteTraceStore) -> None:
    await store.add(
        {
            key(1): [span(1, **about("jobs", "7"))],
            key(2): [span(2, **about("mail", "77"), begin=1001.0, seconds=9.0), span(3, agent="ann")],
            key(3): [span(4, begin=1002.0, error="no", agent="anna")],
        },
        now=1.0,
    )
    assert await found(store) == [3, 2, 1]
    assert await found(store, queue="jobs") == [1]
    assert await found(store, message="7") == [1]
    assert await found(store, agent="ann") == [2]
    assert await found(store, failed=True) == [3]
    assert await found(store, longer=5.0) == [2]
    assert await found(store, queue="mail", message="7") == []
    assert await found(store, since=1000.0) == [3]
    assert await store.get(key(1), since=1000.0) is None


async def test_pages_follow_each_other_without_gaps(store: SqliteTraceStore) -> None:
    await store.add({key(number): [span(begin=1000.0 + number // 3)] for number in range(10)}, now=1.0)
    seen: list[int] = []
    before = None
    while True:
        page = await store.find(ROOM, TraceQuery(limit=3, before=before))
        seen += [int(each.trace, 16) for each in page.traces]
        before = page.next
        if before is None:
            break
    assert sorted(seen) == list(range(10))
    assert seen == await found(store)
    for wrong in ("x", "1:x", "1", "nan:1", "inf:1", "1:-1", f"1:{2**63}"):
        with pytest.raises(InvalidRequestError, match="before"):
            await store.find(ROOM, TraceQuery(before=wrong))


async def test_names_that_a_trace_is_found_by_are_bounded(store: SqliteTraceStore) -> None:
    spans = [span(number, agent=f"a{number}") for number in range(100)]
    await store.add({key(): [*spans, span(200, agent="line\nfeed"), span(201, agent="a0")]}, now=1.0)
    got = await store.get(key())
    assert got is not None
    assert got[0].agents == [f"a{number}" for number in range(32)]
    assert got[0].spans == 102


async def test_a_trace_that_is_too_large_keeps_its_first_spans(tmp_path: Path) -> None:
    store = SqliteTraceStore(tmp_path / "traces.sqlite", TraceLimits(trace_spans=3))
    await store.open()
    await store.add({key(): [span(number) for number in range(5)]}, now=1.0)
    await store.add({key(): [span(9)]}, now=1.0)
    got = await store.get(key())
    await store.close()
    assert got is not None
    assert (len(got[1]), got[0].spans, got[0].dropped) == (3, 3, 3)


async def test_traces_are_forgotten_when_they_are_old(tmp_path: Path) -> None:
    store = SqliteTraceStore(tmp_path / "traces.sqlite", TraceLimits(days=1))
    await store.open()
    await store.add({key(1): [span()]}, now=0.0)
    await store.add({key(2): [span()]}, now=DAY / 2)
    await store.add({}, now=DAY + 1)
    assert await found(store) == [2]
    await store.close()


async def test_a_tenant_over_its_share_loses_its_oldest(tmp_path: Path) -> None:
    size = span().size + 300
    store = SqliteTraceStore(tmp_path / "traces.sqlite", TraceLimits(tenant_bytes=size * 100))
    await store.open()
    for number in range(150):
        await store.add({key(number): [span()]}, now=float(number))
    left = await found(store, limit=200)
    await store.close()
    assert max(left) == 149
    assert sorted(left) == list(range(min(left), 150))
    assert 90 <= len(left) <= 100


async def test_a_tenant_that_floods_pushes_out_nothing_of_another(tmp_path: Path) -> None:
    size = span().size + 300
    quiet = RoomKey(TenantId("quiet"), "room")
    store = SqliteTraceStore(tmp_path / "traces.sqlite", TraceLimits(total_bytes=size * 100))
    await store.open()
    await store.add({key(number, quiet): [span()] for number in range(40)}, now=0.0)
    for batch in range(10):
        await store.add({key(batch * 50 + number): [span()] for number in range(50)}, now=float(batch + 1))
    assert len(await found(store, quiet, limit=200)) == 40
    left = await found(store, limit=200)
    await store.close()
    assert 40 <= len(left) <= 60
    assert min(left) >= 400


async def test_what_is_deleted_is_gone_and_makes_room(store: SqliteTraceStore) -> None:
    other = RoomKey(ROOM.tenant, "other")
    rival = RoomKey(TenantId("rival"), "room")
    batch = {key(number, room): [span()] for number in range(300) for room in (ROOM, other, rival)}
    await store.add(batch, now=1.0)
    await store.delete_all(ROOM.tenant, "room")
    assert [len(await found(store, room, limit=500)) for room in (ROOM, other, rival)] == [0, 300, 300]
    await store.delete_all(ROOM.tenant)
    assert [len(await found(store, room, limit=500)) for room in (ROOM, other, rival)] == [0, 0, 300]
    await store.delete_all(rival.tenant)
    await store.add({key(): [span()]}, now=1.0)
    assert await found(store) == [0]


async def test_a_batch_that_is_larger_than_its_share_leaves_as_much_as_fits(tmp_path: Path) -> None:
    size = span().size + 300
    store = SqliteTraceStore(tmp_path / "traces.sqlite", TraceLimits(tenant_bytes=size * 100))
    await store.open()
    await store.add({key(number): [span()] for number in range(400)}, now=1.0)
    assert 90 <= len(await found(store, limit=500)) <= 100
    await store.close()
