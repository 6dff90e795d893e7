import json
import logging
import sqlite3
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.agents.assignment import CallRequest
from meshhost.hosting.calls.ledger import AgentLedger, Ledger, LedgerEntry, _entry, _put
from meshhost.identity.tenant import TenantId
from meshhost.testing.clock import FakeClock


def request(**changes):
    given = {
        "tenant": TenantId("acme"),
        "room_name": "room",
        "room_url": "ws://127.0.0.1:1/rooms/room",
        "identity": "worker",
        "arguments": {"topic": "ai", "n": [1, None]},
        "expires_at": 9.5,
        "token": "secret-token",
    }
    return CallRequest(**given | changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "host-ledger.db"


def spawn_ledger(path, **options):
    return AgentLedger(Ledger(path, clock=FakeClock(), **options))


async def reopened(path):
    again = spawn_ledger(path)
    entries = await again.open()
    await again.close()
    return entries


async def test_what_was_recorded_is_there_after_the_process(path):
    ledger = spawn_ledger(path)
    assert await ledger.open() == []
    await ledger.record("s1", "/worker", request())
    await ledger.record("s2", "/worker", request(identity="other", expires_at=None))
    await ledger.record("s1", "/worker", request(token="renewed"))
    await ledger.close()
    first, second = await reopened(path)
    assert (first.path, first.request) == ("/worker", request(token="renewed"))
    assert second.request.identity == "other"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in repr(first)


async def test_signatures_are_known_after_the_process_and_bounded(path):
    ledger = spawn_ledger(path, max_remembered=3)
    await ledger.open()
    for signature in ["a", "b", "a", "c"]:
        await ledger.record("s1", "/worker", request(), signature)
    await ledger.record("s2", "/worker", request(identity="unsigned"))
    for signature in ["d", "e"]:
        await ledger.record_signature(signature)
    await ledger.close()
    again = spawn_ledger(path)
    await again.open()
    assert await again.signatures() == ["c", "d", "e"]
    await again.close()


async def test_who_ended_is_forgotten_and_who_ends_with_the_host_is_not(path):
    ledger = spawn_ledger(path)
    await ledger.open()
    for spawn in ("s1", "s2", "s3"):
        await ledger.record(spawn, "/worker", request(identity=spawn))
    ledger.ended("s1")
    ledger.ended("s1")
    ledger.ended("never recorded")
    ledger.freeze()
    ledger.ended("s2")
    await ledger.close()
    assert [entry.request.identity for entry in await reopened(path)] == ["s2", "s3"]


async def test_an_agent_that_came_back_keeps_its_entry(path):
    ledger = spawn_ledger(path)
    await ledger.open()
    await ledger.record("s1", "/worker", request())
    await ledger.record("s2", "/worker", request(identity="gone"))
    await ledger.close()
    ledger = spawn_ledger(path)
    back, gone = await ledger.open()
    ledger.resumed("s9", back)
    await ledger.drop(gone)
    await ledger.record("s9", "/worker", request(token="renewed"))
    await ledger.close()
    [entry] = await reopened(path)
    assert (entry.id, entry.request.token) == (back.id, "renewed")


async def test_a_ledger_in_use_is_refused(path):
    ledger = spawn_ledger(path)
    await ledger.open()
    with pytest.raises(SettingsError, match="in use"):
        await spawn_ledger(path).open()
    await ledger.close()
    await ledger.close()


async def test_a_call_that_cannot_be_recorded_is_refused_and_says_nothing_secret(path, caplog):
    file = Ledger(path, clock=FakeClock())
    ledger = AgentLedger(file)
    await ledger.open()
    await ledger.record("s1", "/worker", request())
    await file.close()
    with pytest.raises(CallRefusedError, match="cannot record") as refused:
        await ledger.record("s2", "/worker", request())
    assert (refused.value.status, refused.value.retry_after) == (503, 5.0)
    with caplog.at_level(logging.ERROR):
        ledger.ended("s1")
        await ledger.close()
    assert "could not be removed" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("call", ["nonsense", "[]", "{}", json.dumps({"tenant": "a", "unknown": 1})])
async def test_an_entry_that_cannot_be_read_is_left_out(path, call, caplog):
    ledger = spawn_ledger(path)
    await ledger.open()
    await ledger.record("s1", "/worker", request())
    await ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE spawns SET call = ?", (call,))
    connection.close()
    assert await reopened(path) == []
    assert "cannot be read" in caplog.text
    assert "ledger" in repr(ledger)


@given(
    arguments=st.dictionaries(
        st.text(),
        st.recursive(st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(), st.lists, max_leaves=5),
    ),
    name=st.text(min_size=1),
    expires=st.none() | st.floats(0, 1e10),
)
def test_a_call_is_the_same_after_it_was_stored(arguments, name, expires):
    from unittest.mock import MagicMock

    entry = LedgerEntry("id", "/p", request(arguments=arguments, identity=name, expires_at=expires))
    connection = MagicMock()
    _put(entry, 0.0)(connection)
    row = connection.execute.call_args.args[1]
    assert _entry((row[0], row[3], row[5])) == entry


async def test_a_ledger_that_was_never_opened_closes_at_once(path):
    await spawn_ledger(path).close()
    assert not path.exists()


async def test_a_ledger_that_cannot_be_read_is_closed_again(path, monkeypatch):
    file = Ledger(path, clock=FakeClock())
    ledger = AgentLedger(file)

    async def fails():
        raise OSError("disk")

    monkeypatch.setattr(file, "entries", fails)
    with pytest.raises(OSError, match="disk"):
        await ledger.open()
    assert await reopened(path) == []
