"""Weighted fair order between tenants, and that everything with a queue of operations keeps to it while it is blocked."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.postgres.batches import Batcher
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.stores.shared.fair import FairQueue, TenantWeights
from meshhost.stores.shared.fair_gate import FairGate
from meshhost.stores.sqlite.pace import Pace
from meshhost.stores.sqlite.queues import SqliteQueueStore


def weights(**of: float) -> TenantWeights:
    made = TenantWeights()
    made.follow(lambda tenant: of.get(tenant, 1.0))
    return made


def taken(queue: FairQueue[str]) -> str:
    return "".join(queue.get() for _ in range(len(queue)))


def filled(tenants: str, of: TenantWeights | None = None) -> FairQueue[str]:
    queue = FairQueue[str](of)
    for tenant in tenants:
        queue.put(tenant, tenant)
    return queue


def test_tenants_take_turns_whoever_has_more() -> None:
    assert taken(filled("aaaaaabbc")) == "abcabaaaa"


def test_who_comes_late_is_next_and_has_saved_nothing_up() -> None:
    queue = filled("a" * 10)
    for _ in range(5):
        queue.get()
    for _ in range(3):
        queue.put("b", "b")
    assert taken(queue) == "bababaaa"


def test_who_comes_one_at_a_time_gets_every_second_turn() -> None:
    queue = filled("a" * 10)
    order = ""
    for _ in range(8):
        queue.put("b", "b")
        order += queue.get()
        if order[-1] == "a":
            order += queue.get()
    assert Counter(order)["a"] >= 6


def test_a_tenant_of_weight_three_gets_three_turns_for_one() -> None:
    order = taken(filled("a" * 30 + "b" * 30, weights(a=3)))
    assert Counter(order[:40]) == {"a": 30, "b": 10}


def test_items_of_one_tenant_stay_in_order_and_the_next_one_can_be_looked_at() -> None:
    queue = FairQueue[int]()
    for number in range(5):
        queue.put(number, "a")
    assert queue.peek() == 0
    assert [queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        queue.get()
    with pytest.raises(IndexError):
        queue.peek()


def test_tenants_that_went_are_forgotten() -> None:
    queue = filled("a" * 5000)
    for number in range(2000):
        queue.put("x", str(number))
        queue.get()
        queue.get()
    assert len(queue._places) <= 1100


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=200))
def test_no_tenant_that_waits_is_passed_by_twice_while_it_waits(steps: list[str | None]) -> None:
    queue, waiting = FairQueue[str](), Counter[str]()
    passed: dict[str, Counter[str]] = {tenant: Counter() for tenant in "abc"}
    for tenant in steps:
        if tenant is not None:
            queue.put(tenant, tenant)
            waiting[tenant] += 1
        elif queue:
            served = queue.get()
            waiting[served] -= 1
            passed[served].clear()
            for other in "abc":
                if other != served and waiting[other]:
                    passed[other][served] += 1
                    assert passed[other][served] <= 2


# --- The thread of a SQLite file


def room(tenant: str) -> QueueKey:
    return QueueKey(RoomKey(TenantId(tenant), "lobby"), "jobs")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteQueueStore]:
    made = SqliteQueueStore(tmp_path / "queues.db", weights=weights(c=2))
    await made.open()
    yield made
    await made.close()


class Gate:
    """Blocks the thread, or the reader, until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._is_closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, _: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self._is_closed.set)
        self._open.wait(30)

    async def closed(self) -> None:
        await self._is_closed.wait()

    def open(self) -> None:
        self._open.set()


async def order_of(operations: Sequence[tuple[str, "asyncio.Task[object]"]]) -> list[str]:
    """The tenants in the order in which their operations ended."""
    ended: list[str] = []
    for tenant, task in operations:
        task.add_done_callback(lambda _, tenant=tenant: ended.append(tenant))
    await asyncio.gather(*(task for _, task in operations))
    return ended


async def test_a_thousand_sends_of_one_tenant_delay_another_by_a_turn(store: SqliteQueueStore) -> None:
    gate = Gate()
    blocked = asyncio.create_task(store.database.run(gate))
    await gate.closed()
    operations: list[tuple[str, asyncio.Task[object]]] = [
        (tenant, asyncio.create_task(store.send(room(tenant), NewMessage("1"))))
        for tenant in ["a"] * 1000 + ["b"] * 10 + ["c"] * 10
    ]
    await asyncio.sleep(0)
    gate.open()
    order = await order_of(operations)
    await blocked
    last = max(place for place, tenant in enumerate(order) if tenant == "b")
    assert last < 10 + 10 + 10 + 2
    assert max(place for place, tenant in enumerate(order) if tenant == "c") < 10 + 5 + 5 + 3  # twice the weight


@pytest.mark.parametrize(
    "read",
    [
        lambda store, tenant: store.get(room(tenant), 1),
        lambda store, tenant: store.overview(TenantId(tenant)),
    ],
    ids=["of a message", "of all queues"],
)
async def test_reads_of_one_tenant_delay_those_of_another_by_a_turn(
    store: SqliteQueueStore, read: Callable[[SqliteQueueStore, str], Coroutine[None, None, object]]
) -> None:
    for tenant in "ab":
        await store.create(room(tenant))
    gate = Gate()
    blocked = asyncio.create_task(store.database.read(gate))
    await gate.closed()
    operations: list[tuple[str, asyncio.Task[object]]] = [
        (tenant, asyncio.create_task(read(store, tenant))) for tenant in ["a"] * 200 + ["b"] * 5
    ]
    await asyncio.sleep(0)
    gate.open()
    order = await order_of(operations)
    await blocked
    assert max(place for place, tenant in enumerate(order) if tenant == "b") < 12


async def test_a_read_whose_caller_is_gone_is_left_out(store: SqliteQueueStore) -> None:
    gate, ran = Gate(), list[int]()
    blocked = asyncio.create_task(store.database.read(gate))
    await gate.closed()
    first, second = (
        asyncio.create_task(store.database.read(lambda _, number=number: ran.append(number), tenant="a"))
        for number in (1, 2)
    )
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(blocked, second)
    assert ran == [2]


async def test_what_must_reach_the_disk_waits_for_the_next_batch_when_this_one_does_not(
    store: SqliteQueueStore,
) -> None:
    gates, synced = [Gate(), Gate()], list[int]()

    def look(db: sqlite3.Connection) -> None:
        synced.append(db.execute("PRAGMA synchronous").fetchone()[0])

    first = asyncio.create_task(store.database.run(gates[0], is_durable=False))
    await gates[0].closed()
    # Two wait when the next batch begins; while its first one runs, one of another tenant comes that must be durable.
    lease, second = (
        asyncio.create_task(store.database.run(operation, is_durable=False, tenant="a"))
        for operation in (gates[1], look)
    )
    await asyncio.sleep(0)
    gates[0].open()
    await gates[1].closed()
    durable = asyncio.create_task(store.database.run(look, tenant="b"))
    await asyncio.sleep(0)
    gates[1].open()
    await asyncio.gather(first, lease, second, durable)
    full, normal = 2, 1
    assert synced == [full, full]  # b's turn comes before the second one of a, which then shares its commit
    assert normal not in synced


@pytest.mark.parametrize(("tenants", "commits"), [("aaaa", 1), ("aabb", 3)])
async def test_a_batch_ends_soon_while_several_tenants_wait(tmp_path: Path, tenants: str, commits: int) -> None:
    store = SqliteQueueStore(tmp_path / "own.db", pace=Pace(batch_seconds=0.0, commits=0.0))
    await store.open()
    statements, gate = list[str](), Gate()

    def begin(db: sqlite3.Connection) -> None:
        gate(db)
        db.set_trace_callback(statements.append)

    blocked = asyncio.create_task(store.database.run(begin))
    await gate.closed()
    tasks = [
        asyncio.create_task(store.database.run(lambda db: db.execute("SELECT 1").fetchone(), tenant=tenant))
        for tenant in tenants
    ]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(blocked, *tasks)
    assert statements.count("COMMIT") == 1 + commits
    await store.close()


async def test_an_ack_comes_before_the_end_of_its_holder_however_much_its_tenant_has_waiting(
    store: SqliteQueueStore,
) -> None:
    await store.send(room("a"), NewMessage("1"))
    (delivery,) = await store.lease(room("a"), HolderId("ann"), seconds=30)
    gate = Gate()
    blocked = asyncio.create_task(store.database.run(gate))
    await gate.closed()
    sends = [asyncio.create_task(store.send(room("a"), NewMessage("2"))) for _ in range(50)]
    await asyncio.sleep(0)
    ack = asyncio.create_task(store.ack(delivery.lease))
    await asyncio.sleep(0)
    released = asyncio.create_task(store.release_holder(HolderId("ann"), reason=EndReason.INTERRUPTED))
    await asyncio.sleep(0)
    gate.open()
    assert await ack is False
    assert await released == []
    await asyncio.gather(blocked, *sends)


# --- The way to PostgreSQL


async def test_connections_are_given_to_tenants_by_turns() -> None:
    gate, order, go = FairGate(2), list[str](), asyncio.Event()

    async def use(tenant: str) -> None:
        async with gate.place(tenant, seconds=30):
            order.append(tenant)
            await go.wait()

    tasks = [asyncio.create_task(use(tenant)) for tenant in ["a"] * 50 + ["b"] * 5]
    await asyncio.sleep(0)
    own = asyncio.create_task(use(""))  # the server's own are few and wait for nobody
    await asyncio.sleep(0)
    assert order == ["a", "a", ""]
    go.set()
    await asyncio.gather(own, *tasks)
    assert max(place for place, tenant in enumerate(order) if tenant == "b") < 3 + 2 * 5 + 2
    assert len(order) == 56


async def test_a_place_is_lost_neither_by_who_gives_up_nor_by_who_waits_too_long() -> None:
    gate = FairGate(1)
    await gate.enter("a", 30)
    with pytest.raises(TimeoutError):
        await gate.enter("b", 0)
    waiting = [asyncio.create_task(gate.enter(tenant, 30)) for tenant in "bcd"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    gate.leave()
    waiting[1].cancel()  # at the moment at which its turn has come
    await asyncio.gather(*waiting, return_exceptions=True)
    assert waiting[2].done()
    assert not waiting[2].cancelled()
    gate.leave()
    await asyncio.wait_for(gate.enter("e", 30), 1)


async def test_batches_are_filled_by_turns_and_keep_each_tenants_order() -> None:
    batches, go = list[list[tuple[str, int]]](), asyncio.Event()

    async def run(items: Sequence[tuple[str, int]]) -> Sequence[None]:
        batches.append(list(items))
        await go.wait()
        return [None] * len(items)

    batcher = Batcher[tuple[str, int], None](run, most=20)
    tasks = [
        asyncio.create_task(batcher.do((tenant, number), tenant))
        for tenant, count in (("a", 1000), ("b", 10))
        for number in range(count)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*tasks)
    assert {tenant for tenant, _ in batches[1]} == {"a", "b"} or {tenant for tenant, _ in batches[0]} == {"a", "b"}
    done = [item for batch in batches for item in batch]
    assert max(place for place, (tenant, _) in enumerate(done) if tenant == "b") < 42
    for tenant in "ab":
        numbers = [number for name, number in done if name == tenant]
        assert numbers == sorted(numbers)
