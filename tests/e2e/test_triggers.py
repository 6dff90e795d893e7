"""What starts work from outside, with real processes: a room asleep gets its agent called, which settles the message."""

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from tests.e2e.test_waking import Site, ports

__all__ = ["ports"]

JSON = {"Content-Type": "application/json"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Each engine."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_server").new_database()


async def post(site: Site, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Any:
    """POST as a foreign service does; the answer must be one of success."""
    url = f"http://127.0.0.1:{site.home.port}{path}"
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def key(site: Site) -> dict[str, str]:
    return {"Authorization": f"Bearer {site.home.environment['MESHHOST_API_KEY']}", "Content-Type": "application/json"}


async def until_settled(site: Site) -> None:
    """Wait until nothing is left in the queue: what was done was settled."""
    async with asyncio.timeout(60):
        while True:
            queues = json.loads(await site.home.cli("queue", "list", "--room=works", "--json"))
            if all(not (queue["ready"] or queue["leased"] or queue["delayed"] or queue["dead"]) for queue in queues):
                return


async def test_a_message_sent_by_rest_wakes_its_room(home: Any, ports: list[int]) -> None:
    site = Site(home, ports[:1])
    async with site.server(), site.host(0):
        assert int((await post(site, "/rooms/works/queues/jobs/messages", b"1", key(site)))["id"])
        await site.until_done(1)
        assert len((await post(site, "/rooms/works/queues/jobs/messages", b"[2, 3]", key(site)))["ids"]) == 2
        await site.until_done(1, 2, 3)
        await until_settled(site)
    assert site.done() == [1, 2, 3]


async def test_signed_deliveries_of_github_and_standard_webhooks_are_settled(
    home: Any,
    ports: list[int],
) -> None:
    site = Site(home, ports[:1])
    async with site.server(), site.host(0):
        create = ("hook", "create", "--room=works", "--queue=jobs", "--json")
        github = json.loads(await home.cli(*create, "--verify=github"))
        digest = hmac.new(github["secret"].encode(), b"1", hashlib.sha256).hexdigest()
        signed = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": "72d3162e", "X-GitHub-Event": "push"}
        path = github["url"].partition(str(home.port))[2]
        first = await post(site, path, b"1", JSON | signed)
        assert await post(site, path, b"1", JSON | signed) == first
        await site.until_done(1)

        standard = json.loads(await home.cli(*create, "--verify=standard-webhooks"))
        secret, now = base64.b64decode(standard["secret"].removeprefix("whsec_")), str(int(time.time()))
        code = base64.b64encode(hmac.digest(secret, f"msg_1.{now}.2".encode(), "sha256")).decode()
        signed = {"webhook-id": "msg_1", "webhook-timestamp": now, "webhook-signature": f"v1,{code}"}
        path = standard["url"].partition(str(home.port))[2]
        second = await post(site, path, b"2", JSON | signed)
        assert await post(site, path, b"2", JSON | signed) == second != first
        await site.until_done(1, 2)
        await until_settled(site)
    assert site.done() == [1, 2]


async def test_a_schedule_sends_once_although_its_server_is_killed(home: Any, ports: list[int]) -> None:
    site = Site(home, ports[:1])
    async with site.host(0):
        async with site.server() as server:
            for number in (1, 2):
                await home.cli(
                    "schedule", "add", "--room=works", "--queue=jobs", f"--message={number}", "--every=10s", "--once"
                )
            server.signal(signal.SIGKILL)
            await server.exit_code()
        async with site.server():
            await site.until_done(1, 2)
            await until_settled(site)
            listed = json.loads(await home.cli("schedule", "list", "--json"))
            assert [(each["sent"], each["next_at"]) for each in listed] == [(1, None)] * 2
    assert site.done() == [1, 2]
