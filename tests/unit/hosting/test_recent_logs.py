"""The last log records of a host: bounded, filtered, and shown to its operator only."""

import logging
from collections.abc import Iterator

import aiohttp
import pytest

from meshhost.api.services import ServiceHost
from meshhost.hosting.observe.recent_logs import RecentLogs
from meshhost.logs import log_context

logger = logging.getLogger("program")


@pytest.fixture
def logs() -> Iterator[RecentLogs]:
    logger.setLevel(logging.INFO)
    kept = RecentLogs(most=3)
    kept.attach()
    yield kept
    kept.detach()
    logger.setLevel(logging.NOTSET)


def messages(logs: RecentLogs, after: int = 0, limit: int = 10, **fields: str) -> list[str]:
    return [record["message"] for record in logs.after(after, limit=limit, fields=fields)[0]]


def test_only_the_last_records_of_agents_and_of_the_host_are_kept(logs: RecentLogs) -> None:
    logger.warning("of no agent")
    logging.getLogger("meshhost.x").warning("of the host")
    with log_context(spawn_id="a" * 32, room="r"):
        logger.debug("too fine")
        for number in range(3):
            logger.info("message %s", number)

    assert messages(logs) == ["message 0", "message 1", "message 2"]
    assert messages(logs, limit=1) == ["message 2"]
    assert logs.after(0, limit=1, fields={})[1] == 4


def test_records_are_found_by_agent_and_room_and_by_what_came_after(logs: RecentLogs) -> None:
    for agent, room in (("a", "r"), ("b", "r"), ("b", "s")):
        with log_context(spawn_id=agent * 32, room=room):
            logger.info("%s in %s", agent, room)

    assert messages(logs, spawn_id="bbbbbb") == ["b in r", "b in s"]
    assert messages(logs, spawn_id="bbbbbb", room="s") == ["b in s"]
    assert messages(logs, after=2) == ["b in s"]
    assert messages(logs, after=3) == []
    # The number of a host that ran before.
    assert messages(logs, after=99) == ["a in r", "b in r", "b in s"]


def test_a_tenant_is_found_by_its_id_and_by_its_name(logs: RecentLogs) -> None:
    for tenant, name in (("e63405ce", "acme"), ("0123", "globex")):
        with log_context(spawn_id="a" * 32, tenant=tenant):
            logger.info("of %s", name, extra={"tenant_name": name})

    assert messages(logs, tenant="e63405ce") == messages(logs, tenant="acme") == ["of acme"]


def test_a_record_is_bounded_and_never_fails_the_code_that_logs(logs: RecentLogs) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ValueError

    with log_context(spawn_id="a" * 32):
        logger.info("x" * 5_000, extra={"seconds": float("inf"), "data": ["y" * 5_000]})
        logger.info("fine", extra={"data": Unprintable()})

    [record] = logs.after(0, limit=10, fields={})[0]
    assert (len(record["message"]), len(record["data"]), record["seconds"]) == (2_001, 2_001, "inf")


async def test_an_operator_sees_the_records_of_a_running_host() -> None:
    host = ServiceHost(host="127.0.0.1", port=0, admin_key="key", webhook_secret="s" * 32)
    await host.start()
    try:
        logging.getLogger("meshhost.x").warning("seen", extra={"room": "r"})
        url = f"http://127.0.0.1:{host.port}/agents/logs"
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as response:
                assert response.status == 401
            headers = {"Authorization": "Bearer key"}
            async with session.get(url, params={"room": "r"}, headers=headers) as response:
                answer = await response.json()
            async with session.get(url, params={"limit": "0"}, headers=headers) as response:
                assert response.status == 400
    finally:
        await host.stop()
    assert [record["message"] for record in answer["records"]] == ["seen"]
    assert not [one for one in logging.getLogger().handlers if isinstance(one, RecentLogs)]
