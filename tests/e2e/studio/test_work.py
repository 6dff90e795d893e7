"""Work that went wrong, in a real browser: its cause is read, it is replayed. A viewer reads no contents, changes nothing."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import expect

from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.http.permissions import NEEDED
from meshhost.stores.queues import EndReason, HolderId, NewMessage, QueueKey
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"

OPENAPI = Path(__file__).parents[3] / "docs" / "reference" / "openapi.json"
# What changes something by its method and a viewer's session may do all the same, each with the reason.
MAY = {
    ("POST", "/schedules/preview"): "computes times, stores nothing",
    ("POST", "/hooks/{id}"): "is signed by who sends, whoever that is",
    ("POST", "/oauth/authorize"): "a login with a key of its own",
    ("POST", "/oauth/token"): "a login with a key of its own",
    ("POST", "/oauth/register"): "names a client of that login, for anybody",
    ("POST", "/studio/api/session"): "signs in",
    ("DELETE", "/studio/api/session"): "signs out",
    ("POST", "/studio/api/link"): "makes a link with the same rights",
}
# What takes tokens of participants only, and what answers that this server does not have it.
REFUSED = {
    "/rooms/{room}/v1/{path}": (401,),
    "/accounts/projects/{project}/{what}": (404,),
    "/accounts/projects/{project}/{what}/{rest}": (404,),
}


def changing_operations() -> list[tuple[str, str]]:
    """Method and path of each operation of the room server's OpenAPI description that is not a mere read."""
    paths = json.loads(OPENAPI.read_text())["paths"]
    return [
        (method.upper(), path)
        for path, operations in paths.items()
        for method in operations
        if method in {"post", "put", "patch", "delete"}
    ]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, operator_key=OPERATOR_KEY) as running:
        yield running


async def a_dead_message(server: RunningServer) -> tuple[QueueKey, str]:
    queue = QueueKey(RoomKey(TenantId(server.key.project_id), "den"), "jobs")
    queues = server.server.engines.queues
    sent = await queues.send(queue, NewMessage(body='{"instructions": "write a secret poem"}'))
    await queues.configure(queue, {"max_attempts": 1})
    [delivery] = await queues.store.lease(queue, HolderId("w"), seconds=30)
    await queues.store.nack(delivery.lease, reason=EndReason.FAILED, error="ValueError: out of ink")
    return queue, str(sent)


async def test_a_dead_message_is_replayed_after_its_cause_was_read(server: RunningServer, studio: Any) -> None:
    queue, message = await a_dead_message(server)
    page = await studio.open(server.server.studio_link(server.key))
    await page.get_by_role("link", name="den / jobs").click()
    await expect(page.get_by_role("button", name="dead 1")).to_be_visible()
    await page.get_by_role("link", name=message).first.click()
    await expect(page.get_by_text("out of ink").first).to_be_visible()
    await expect(page.get_by_text("Given up").first).to_be_visible()
    await expect(page.get_by_text("write a secret poem").first).to_be_visible()
    await page.get_by_role("button", name="Replay").first.click()
    await expect(page.get_by_text("ready", exact=True).first).to_be_visible()
    [stats] = await server.server.engines.queues.stats(queue.room)
    assert (stats.dead, stats.ready) == (0, 1)
    await studio.close()


async def test_a_message_says_what_happened_to_it_and_what_comes_next(
    server: RunningServer, studio: Any, serious_issues: Any
) -> None:
    queue = QueueKey(RoomKey(TenantId(server.key.project_id), "den"), "jobs")
    queues = server.server.engines.queues
    sent = await queues.send(queue, NewMessage(body='{"a": 1}'))
    page = await studio.open(server.server.studio_link(server.key))
    await expect(page.get_by_role("link", name="den", exact=True)).to_be_visible()
    await page.goto(f"{server.url}/studio/rooms/den/queues/jobs/{sent}")
    line = page.get_by_role("region", name="Timeline").get_by_role("listitem")
    await expect(line.nth(1)).to_contain_text("Waits for a worker")
    delivery = await queues.receive(queue, HolderId("1"), lease_seconds=60, by="worker-1")
    assert delivery is not None
    await expect(line.nth(1)).to_contain_text("Attempt 1 · in progress by worker-1")
    await queues.nack(delivery.lease, reason=EndReason.FAILED, error="ValueError: out of ink", delay=3600)
    await expect(line.nth(1)).to_contain_text("Attempt 1 · failed")
    await expect(line.nth(1)).to_contain_text("out of ink")
    await expect(line.nth(2)).to_contain_text("Next attempt in 59 min")
    await expect(line.nth(0)).to_contain_text("Sent")
    assert await serious_issues(page) == []
    await studio.close()


async def test_a_viewer_reads_no_contents_and_may_do_nothing(server: RunningServer, studio: Any) -> None:
    _, message = await a_dead_message(server)
    tenant = server.key.project_id
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{server.url}/tenants/{tenant}/keys", json={"role": "viewer"}) as answer,
    ):
        key = parse_api_key((await answer.json())["value"])
    page = await studio.open(server.server.studio_link(key), expected=("403", "401.*/v1/x", "404.*/accounts/projects/"))
    await page.get_by_role("link", name="den / jobs").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("jobs")
    for button in ("Send", "Purge", "Replay", "Pause", "Settings"):
        await expect(page.get_by_role("button", name=button)).to_have_count(0)
    await expect(page.get_by_role("link", name="Files")).to_have_count(0)
    await page.get_by_role("link", name=message).first.click()
    await expect(page.get_by_text("out of ink").first).to_be_visible()
    await expect(page.get_by_text("secret poem")).to_have_count(0)
    # What the page does not show, made by hand in it, with its session.
    asked = [[method, path] for method, path in changing_operations() if (method, path) not in MAY]
    asked += [[method, path] for (method, path), needed in NEEDED.items() if method == "GET" and needed != "viewer"]
    statuses = await page.evaluate(
        """async asked => {
            const {csrf} = await (await fetch("/studio/api/session")).json();
            const found = [];
            for (const [method, path] of asked) {
                const body = method === "GET" ? undefined : "{}";
                const headers = {"X-Meshhost-Csrf": csrf, "Content-Type": "application/json"};
                const answer = await fetch(path.replace(/[{]\\w+[}]/g, "x"), {method, body, headers});
                found.push([answer.status, method, path]);
            }
            return found;
        }""",
        asked,
    )
    assert [each for each in statuses if each[0] not in REFUSED.get(each[2], (403,))] == []
    assert len(statuses) > 60
    assert set(MAY) <= set(changing_operations())
    await studio.close()
