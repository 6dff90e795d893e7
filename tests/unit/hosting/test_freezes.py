import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError
from meshhost.hosting.calls.ledger import AgentLedger, Ledger
from meshhost.hosting.tenants.freezes import Freeze, Freezes
from meshhost.testing.clock import FakeClock


class Store:
    """Keeps freezes once `go` is set, in the order asked for; fails when told to."""

    def __init__(self, *kept):
        self.kept = {freeze.tenant: freeze for freeze in kept}
        self.is_broken = False
        self.go = asyncio.Event()
        self.go.set()
        self._turn = asyncio.Lock()

    async def freezes(self):
        return list(self.kept.values())

    async def put_freeze(self, freeze):
        await self._take_turn()
        self.kept[freeze.tenant] = freeze

    async def remove_freeze(self, tenant):
        await self._take_turn()
        self.kept.pop(tenant, None)

    async def _take_turn(self):
        async with self._turn:
            await self.go.wait()
        if self.is_broken:
            raise OSError("disk full")


def seen(freezes):
    return [(one.tenant, one.since, one.reason, one.is_durable) for one in freezes.values()]


async def test_without_a_store_a_freeze_is_kept_in_memory_and_says_so():
    clock = FakeClock(100.0)
    freezes = Freezes(clock=clock)
    await freezes.restore()
    freeze = await freezes.freeze("acme", reason="abuse")
    assert (freeze.since, freeze.reason, freeze.is_durable) == (100.0, "abuse", False)
    assert ("acme" in freezes, len(freezes), "other" in freezes) == (True, 1, False)
    await freezes.thaw("other")
    await freezes.thaw("acme")
    await freezes.thaw("acme")
    assert not freezes
    assert repr(freezes) == "<Freezes tenants=0>"


async def test_who_is_frozen_again_keeps_the_time_and_the_reason_unless_another_is_given():
    clock = FakeClock(100.0)
    freezes = Freezes(clock=clock, store=Store())
    await freezes.freeze("acme", reason="abuse")
    await clock.advance(10)
    await freezes.freeze("acme")
    assert seen(freezes) == [("acme", 100.0, "abuse", True)]
    await freezes.freeze("acme", reason="worse")
    assert seen(freezes) == [("acme", 100.0, "worse", True)]


async def test_a_freeze_takes_effect_at_once_and_is_answered_when_it_is_durable():
    store = Store()
    store.go.clear()
    freezes = Freezes(clock=FakeClock(), store=store)
    async with asyncio.TaskGroup() as tasks:
        freezing = tasks.create_task(freezes.freeze("acme"))
        await asyncio.sleep(0)
        assert ("acme" in freezes, freezing.done()) == (True, False)
        store.go.set()
    assert (await freezing).is_durable


async def test_a_freeze_that_cannot_be_recorded_holds_in_memory_and_is_an_error(caplog):
    store = Store()
    store.is_broken = True
    freezes = Freezes(clock=FakeClock(), store=store)
    with caplog.at_level(logging.ERROR), pytest.raises(CallRefusedError, match="may not be after") as refused:
        await freezes.freeze("acme", reason="a secret of the operator")
    assert (refused.value.status, refused.value.retry_after) == (503, 5.0)
    assert not freezes["acme"].is_durable
    assert "disk full" in caplog.text
    assert "secret" not in caplog.text
    store.is_broken = False
    assert (await freezes.freeze("acme")).is_durable


async def test_a_thaw_that_cannot_be_recorded_leaves_the_tenant_frozen():
    store = Store(Freeze("acme", 5.0, "abuse", is_durable=True))
    freezes = Freezes(clock=FakeClock(), store=store)
    await freezes.restore()
    store.is_broken = True
    with pytest.raises(CallRefusedError, match="stays frozen"):
        await freezes.thaw("acme")
    assert seen(freezes) == [("acme", 5.0, "abuse", True)]


@given(st.lists(st.sampled_from(["freeze", "thaw"]), max_size=8))
async def test_whatever_the_order_memory_and_disk_agree_in_the_end(orders):
    store = Store()
    store.go.clear()
    freezes = Freezes(clock=FakeClock(), store=store)
    async with asyncio.TaskGroup() as tasks:
        for order in orders:
            tasks.create_task(getattr(freezes, order)("acme"))
            await asyncio.sleep(0)
        store.go.set()
    assert set(freezes) == set(store.kept) == ({"acme"} if orders[-1:] == ["freeze"] else set())


async def test_the_ledger_gives_back_who_was_frozen_and_why(tmp_path):
    ledger = AgentLedger(Ledger(tmp_path / "ledger.db", clock=FakeClock()))
    await ledger.open()
    freezes = Freezes(clock=FakeClock(7.0), store=ledger)
    await freezes.freeze("acme", reason="abuse ü\x00")
    await freezes.freeze("other")
    await freezes.freeze("thawed")
    await freezes.thaw("thawed")
    await ledger.close()
    again = AgentLedger(Ledger(tmp_path / "ledger.db", clock=FakeClock()))
    await again.open()
    restored = Freezes(clock=FakeClock(), store=again)
    await restored.restore()
    await again.close()
    assert seen(restored) == [("acme", 7.0, "abuse ü\x00", True), ("other", 7.0, "", True)]
    with pytest.raises(CallRefusedError, match="cannot record"):
        await restored.freeze("late")
