"""What every usage store does, whichever it is."""

import contextlib
import sqlite3
import stat
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

import pytest
from doubles.engines import EVERY_STORE, opened_store

from meshhost.errors import RoomError, SettingsError
from meshhost.identity.tenant import TenantId
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.stores.postgres.usage import PostgresUsageStore
from meshhost.stores.sqlite.usage import SqliteUsageStore
from meshhost.stores.usage import HOUR, UsageCounts, UsageKey, UsageRow, UsageStore, hour_of

ACME, RIVAL = TenantId("acme"), TenantId("rival")


@pytest.fixture(params=EVERY_STORE)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UsageStore]:
    async with opened_store(
        request,
        memory=MemoryUsageStore,
        sqlite=lambda: SqliteUsageStore(tmp_path / "usage.db"),
        postgresql=PostgresUsageStore,
    ) as made:
        yield made


def key(
    hour: int = 0,
    room: str = "lobby",
    identity: str = "bob",
    model: str = "m",
    tenant: TenantId = ACME,
    price: str = "",
) -> UsageKey:
    return UsageKey(tenant, room, identity, model, hour * HOUR, price)


def counts(requests: int = 1) -> UsageCounts:
    return UsageCounts(requests, 11, 3, 7, 0.5, 0)


async def test_what_is_added_for_the_same_key_is_summed(store: UsageStore) -> None:
    await store.add({key(): UsageCounts(1, 11, 3, 7, 0.5, 0, 2), key(1): counts()})
    await store.add({key(): UsageCounts(2, 1, 1, 1, 1.5, 1, 3)})

    assert list(await store.read(ACME)) == [
        UsageRow(key(), UsageCounts(3, 12, 4, 8, 2.0, 1, 5)),
        UsageRow(key(1), counts()),
    ]


async def test_a_tenant_reads_its_own_rows_only(store: UsageStore) -> None:
    await store.add({key(): counts(), key(tenant=RIVAL): counts(2)})

    assert list(await store.read(ACME)) == [UsageRow(key(), counts())]
    assert list(await store.read(RIVAL)) == [UsageRow(key(tenant=RIVAL), counts(2))]
    assert list(await store.read(TenantId("nobody"))) == []


async def test_what_was_used_at_another_price_has_a_row_of_its_own(store: UsageStore) -> None:
    await store.add({key(): counts(), key(price="USD 1 1 1 4"): counts(2)})
    await store.add({key(price="USD 2 1 1 4"): counts(3), key(price="USD 1 1 1 4"): counts(4)})

    assert [(row.key.price, row.counts.requests) for row in await store.read(ACME)] == [
        ("", 1),
        ("USD 1 1 1 4", 6),
        ("USD 2 1 1 4", 3),
    ]


async def test_the_totals_are_those_of_all_tenants_without_rooms_and_identities(store: UsageStore) -> None:
    assert list(await store.totals()) == []
    await store.add({key(hour, room, name): counts() for hour in (0, 5, 24) for room in "ab" for name in "xy"})
    await store.add(
        {key(5, tenant=RIVAL): counts(7), key(5, price="USD 1 1 1 4"): counts(9), key(5, model="n"): counts()}
    )

    def total(hour: int, tenant: TenantId = ACME, model: str = "m", price: str = "") -> UsageKey:
        return key(hour, "", "", model, tenant, price)

    hours = list(await store.totals())
    four = UsageCounts(4, 44, 12, 28, 2.0, 0, 0)
    assert hours == [
        UsageRow(total(0), four),
        UsageRow(total(5), four),
        UsageRow(total(5, price="USD 1 1 1 4"), counts(9)),
        UsageRow(total(5, model="n"), counts()),
        UsageRow(total(5, RIVAL), counts(7)),
        UsageRow(total(24), four),
    ]
    assert list(await store.totals(limit=2, offset=1)) == hours[1:3]
    assert list(await store.totals(since=HOUR * 5.5, until=HOUR * 6)) == hours[1:5]
    days = list(await store.totals(hours=24))
    assert [(row.key, row.counts.requests) for row in days] == [
        (total(0), 8),
        (total(0, price="USD 1 1 1 4"), 9),
        (total(0, model="n"), 1),
        (total(0, RIVAL), 7),
        (total(24), 4),
    ]


async def test_rows_are_ordered_by_hour_room_identity_model_and_price(store: UsageStore) -> None:
    ordered = [
        key(0),
        key(0, price="EUR 1 1 1 1"),
        key(0, model="n"),
        key(0, identity="eve"),
        key(0, room="mail"),
        key(1),
    ]
    await store.add({each: counts() for each in reversed(ordered)})

    assert [row.key for row in await store.read(ACME)] == ordered
    assert [row.key for row in await store.read(ACME, limit=2, offset=1)] == ordered[1:3]


async def test_a_room_and_a_span_of_time_can_be_selected(store: UsageStore) -> None:
    await store.add({key(hour, room): counts() for hour in range(4) for room in ("lobby", "mail")})

    found = await store.read(ACME, room="mail", since=HOUR + 1.5, until=3.0 * HOUR)

    assert [row.key for row in found] == [key(1, "mail"), key(2, "mail")]
    assert len(await store.read(ACME, until=HOUR + 1.0)) == 4  # an hour that has begun before the end counts


def test_the_hour_of_a_time_is_its_begin() -> None:
    assert [hour_of(time) for time in (0.0, 3599.9, 3600.0, 7300.5)] == [0, 0, 3600, 7200]


async def test_a_file_is_private_is_read_again_and_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = SqliteUsageStore(path)
    await store.open()
    await store.add({key(): counts()})
    with pytest.raises(SettingsError, match=r"usage store .* is in use"):
        await SqliteUsageStore(path).open()
    await store.close()
    await store.close()
    with pytest.raises(RoomError, match="not open"):
        await store.read(ACME)
    assert "open=False" in repr(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    again = SqliteUsageStore(path)
    await again.open()
    assert list(await again.read(ACME)) == [UsageRow(key(), counts())]
    await again.close()


async def test_a_file_of_before_there_were_prices_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    migrations = resources.files("meshhost.stores.sqlite") / "migrations" / "usage"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript((migrations / "0001_usage.sql").read_text())
        old.execute("INSERT INTO usage VALUES ('acme', 0, 'lobby', 'bob', 'm', 1, 11, 3, 7, 0.5, 0)")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    store = SqliteUsageStore(path)
    await store.open()
    await store.add({key(): counts(), key(price="USD 1 1 1 4"): counts()})
    [before, priced] = await store.read(ACME)
    assert (before, priced.key.price) == (UsageRow(key(), UsageCounts(2, 22, 6, 14, 1.0, 0, 0)), "USD 1 1 1 4")
    await store.close()


async def test_the_usage_of_one_tenant_is_deleted(store: UsageStore) -> None:
    await store.add({key(hour): counts() for hour in range(300)} | {key(tenant=RIVAL): counts()})
    for _ in range(2):
        await store.delete(ACME)
    assert await store.read(ACME) == []
    assert len(await store.read(RIVAL)) == 1
