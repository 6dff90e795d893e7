import logging
from unittest.mock import AsyncMock, MagicMock

import pytest

from meshhost.errors import CallRefusedError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.calls.admission import AllowedRooms
from meshhost.hosting.calls.ledger import LedgerEntry
from meshhost.hosting.calls.resume import resume
from meshhost.hosting.calls.route import Route
from meshhost.identity.tenant import TenantId
from meshhost.testing.agents import QuietAgent

ROUTES = {"/worker": Route(path="/worker", cls=QuietAgent)}
ALLOWED = AllowedRooms(["http://rooms.example"])


def entry(id="one", path="/worker", url="ws://rooms.example/rooms/room", expires_at=100.0):
    request = CallRequest(TenantId("acme"), "room", url, "worker", {}, expires_at, "secret-token")
    return LedgerEntry(id, path, request)


@pytest.fixture
def ledger():
    return MagicMock(drop=AsyncMock())


async def resumed(ledger, entries, answers=None):
    spawns = MagicMock()
    spawns.resume.side_effect = answers or [True] * len(entries)
    number = await resume(entries, ledger=ledger, agents=spawns, routes=ROUTES, allowed=ALLOWED, now=50.0)
    return number, [call.args[1].id for call in spawns.resume.call_args_list]


async def test_what_may_live_starts_and_the_newest_of_a_key_counts(ledger):
    entries = [entry("old"), entry("never expires", expires_at=None), entry("new")]
    assert await resumed(ledger, entries, [True, True, False]) == (2, ["new", "never expires", "old"])
    ledger.drop.assert_awaited_once_with(entries[0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": "/gone"}, "no agent at its path"),
        ({"expires_at": 50.0}, "its token has expired"),
        ({"url": "ws://evil.example/rooms/room"}, "this host may not dial its room server any more"),
    ],
)
async def test_what_may_not_is_dropped_with_a_line_in_the_log(ledger, caplog, changes, reason):
    gone = entry(**changes)
    assert await resumed(ledger, [gone]) == (0, [])
    ledger.drop.assert_awaited_once_with(gone)
    [record] = caplog.records
    assert (record.msg, record.reason) == ("agent of the ledger is dropped", reason)
    assert "secret" not in str(record.__dict__)


async def test_what_there_is_no_room_for_stays(ledger, caplog):
    with caplog.at_level(logging.WARNING):
        full = CallRefusedError("this host is full", status=503)
        assert await resumed(ledger, [entry(), entry("other")], [full, True]) == (1, ["other", "one"])
    ledger.drop.assert_not_awaited()
    assert "cannot start now" in caplog.text
