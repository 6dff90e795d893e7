"""What every trigger store does, whichever it is: compare-and-set, order of due times, logs, limits and deletion."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.engines import EVERY_STORE, opened_store

from meshhost.errors import AlreadyExistsError, LimitExceededError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.memory.triggers import MemoryTriggerStore
from meshhost.stores.postgres.triggers.store import PostgresTriggerStore
from meshhost.stores.sqlite.triggers.store import SqliteTriggerStore
from meshhost.stores.triggers.contract import LOG_ENTRIES, LogEntry, Trigger, TriggerKind, TriggerLimits, TriggerStore

ACME, RIVAL = TenantId("acme"), TenantId("rival")
LOBBY, MAIL, OTHER = RoomKey(ACME, "lobby"), RoomKey(ACME, "mail"), RoomKey(RIVAL, "lobby")
SCHEDULE, HOOK = TriggerKind.SCHEDULE, TriggerKind.HOOK


@pytest.fixture(params=EVERY_STORE)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TriggerStore]:
    async with opened_store(
        request,
        memory=MemoryTriggerStore,
        sqlite=lambda: SqliteTriggerStore(tmp_path / "triggers.db"),
        postgresql=PostgresTriggerStore,
    ) as made:
        yield made


def schedule(name: str, room: RoomKey = LOBBY, due_at: float | None = None) -> Trigger:
    return Trigger(name, SCHEDULE, room, '{"é": 1}', due_at)


async def test_a_trigger_is_found_as_it_was_added(store: TriggerStore) -> None:
    added = schedule("a", due_at=12.25)
    await store.add(added)

    assert await store.find("a") == added
    assert await store.find("b") is None
    with pytest.raises(AlreadyExistsError):
        await store.add(replace(added, room=OTHER))
    assert "é" not in repr(added)  # it may be a secret


async def test_triggers_are_listed_by_id_in_pages_and_by_room_and_kind(store: TriggerStore) -> None:
    for trigger in (schedule("c"), schedule("a"), schedule("b", MAIL), schedule("d", OTHER)):
        await store.add(trigger)
    await store.add(replace(schedule("e"), kind=HOOK))

    assert [each.id for each in await store.list(ACME, kind=SCHEDULE)] == ["a", "b", "c"]
    assert [each.id for each in await store.list(ACME, "lobby", kind=SCHEDULE)] == ["a", "c"]
    assert [each.id for each in await store.list(ACME, kind=SCHEDULE, after="a", limit=1)] == ["b"]
    assert [each.id for each in await store.list(ACME, kind=HOOK)] == ["e"]
    assert list(await store.rooms(ACME)) == ["lobby", "mail"]


async def test_the_limits_of_a_room_and_of_a_tenant_are_kept_for_each_kind(store: TriggerStore) -> None:
    limits = TriggerLimits(in_room=2, in_tenant=3)
    for trigger in (schedule("a"), schedule("b"), schedule("c", MAIL)):
        await store.add(trigger, limits)

    with pytest.raises(LimitExceededError, match="tenant has 3 schedules"):
        await store.add(schedule("d", MAIL), limits)
    with pytest.raises(LimitExceededError, match="room has 2 schedules"):
        await store.add(schedule("d"), replace(limits, in_tenant=4))
    await store.add(replace(schedule("d"), kind=HOOK), limits)
    await store.add(schedule("e", OTHER), limits)


async def test_of_those_that_read_the_same_version_one_replaces_it(store: TriggerStore) -> None:
    await store.add(schedule("a", due_at=10.0))
    changes = [Trigger("a", SCHEDULE, LOBBY, f"{number}", due_at=20.0 + number, version=2) for number in range(8)]

    done = await asyncio.gather(*(store.replace(each, LogEntry(1.0, each.content)) for each in changes))

    assert done.count(True) == 1
    winner = changes[done.index(True)]
    assert await store.find("a") == winner
    assert list(await store.entries("a")) == [LogEntry(1.0, winner.content)]
    assert not await store.replace(replace(winner, version=2))
    assert not await store.replace(replace(winner, id="b", version=2))
    assert await store.replace(replace(winner, version=3, due_at=None))


async def test_a_trigger_may_move_to_another_room_of_its_tenant(store: TriggerStore) -> None:
    added = replace(schedule("mailbox:a@example.com"), kind=TriggerKind.MAILBOX)
    await store.add(added)
    moved = replace(added, room=MAIL, version=2)

    assert not await store.replace(replace(moved, room=OTHER))
    assert await store.replace(moved)
    assert await store.find(added.id) == moved
    assert list(await store.list(ACME, "lobby", kind=TriggerKind.MAILBOX)) == []
    assert list(await store.list(ACME, "mail", kind=TriggerKind.MAILBOX)) == [moved]


async def test_a_log_keeps_the_newest_entries(store: TriggerStore) -> None:
    await store.add(schedule("a"))
    await store.add(schedule("b"))
    for number in range(LOG_ENTRIES + 3):
        await store.add_entry("a", LogEntry(float(number), str(number)))
    await store.add_entry("b", LogEntry(0.5, "other"))
    await store.add_entry("nobody", LogEntry(0.0, ""))

    kept = range(LOG_ENTRIES + 2, 2, -1)
    assert list(await store.entries("a")) == [LogEntry(float(number), str(number)) for number in kept]
    assert list(await store.entries("b")) == [LogEntry(0.5, "other")]
    assert list(await store.entries("nobody")) == []


async def test_what_is_due_comes_in_order_of_its_time(store: TriggerStore) -> None:
    assert await store.next_due(SCHEDULE) is None
    for trigger in (schedule("a", due_at=30.0), schedule("b", MAIL, 10.0), schedule("c", OTHER, 20.0), schedule("d")):
        await store.add(trigger)
    await store.add(replace(schedule("e", due_at=5.0), kind=HOOK))

    assert [each.id for each in await store.due(SCHEDULE, until=20.0, limit=10)] == ["b", "c"]
    assert [each.id for each in await store.due(SCHEDULE, until=99.0, limit=1)] == ["b"]
    assert await store.next_due(SCHEDULE) == 10.0
    assert await store.is_due(LOBBY, SCHEDULE, until=30.0)
    assert not await store.is_due(LOBBY, SCHEDULE, until=29.0)
    assert await store.is_due(OTHER, SCHEDULE, until=20.0)


async def test_a_deleted_trigger_takes_its_log_along(store: TriggerStore) -> None:
    await store.add(schedule("a"))
    await store.add_entry("a", LogEntry(1.0, "x"))

    with pytest.raises(NotFoundError):
        await store.delete(RIVAL, "a")
    await store.delete(ACME, "a")
    with pytest.raises(NotFoundError):
        await store.delete(ACME, "a")

    await store.add(schedule("a"))
    assert list(await store.entries("a")) == []


async def test_a_room_and_a_tenant_are_deleted_as_a_whole(store: TriggerStore) -> None:
    for number in range(120):
        await store.add(schedule(f"{number:03}"), TriggerLimits(in_room=200))
    await store.add(schedule("m", MAIL))
    await store.add(schedule("o", OTHER))

    for _ in range(2):
        await store.delete_all(ACME, "lobby")
    assert [each.id for each in await store.list(ACME, kind=SCHEDULE)] == ["m"]
    await store.delete_all(ACME)
    assert list(await store.rooms(ACME)) == []
    assert list(await store.rooms(RIVAL)) == ["lobby"]


async def test_a_closed_store_refuses_and_can_be_opened_again(store: TriggerStore) -> None:
    await store.add(schedule("a"))
    await store.close()
    await store.close()
    with pytest.raises(RoomError, match="not open"):
        await store.find("a")
    await store.open()
    assert await store.find("a") is not None


async def test_a_file_says_where_it_is(tmp_path: Path) -> None:
    assert "triggers.db' open=False" in repr(SqliteTriggerStore(tmp_path / "triggers.db"))
