"""Webhooks that tenants configure: signed, in order, tried again, and noted; nothing reaches a neighbour or the inside."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.identity.webhooks import verify_webhook
from meshhost.server.configured import deliveries
from meshhost.testing.server import RunningServer


@dataclass
class Receiver:
    """Takes webhooks, and answers with the statuses that it is told, then with 200."""

    statuses: list[int] = field(default_factory=list)
    got: asyncio.Queue[tuple[bytes, str, dict[str, Any]]] = field(default_factory=asyncio.Queue)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        await self.got.put((body, request.headers["Meshagent-Signature"], json.loads(body)))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    monkeypatch.setattr(deliveries, "RETRY_SECONDS", (0.01, 0.01))
    made = Receiver()
    app = web.Application()
    app.router.add_post("/webhook", made.take)
    async with TestServer(app) as served:
        made.url = str(served.make_url("/webhook"))
        yield made


class Rest:
    """Asks as a tenant."""

    def __init__(self, http: aiohttp.ClientSession, server: RunningServer, key: ApiKey | None = None) -> None:
        self._http = http
        own = key or server.key
        self._url = f"{server.url}/accounts/projects/{own.project_id}/webhooks"
        self._headers = {"Authorization": f"Bearer {encode_api_key(own)}"}

    async def __call__(self, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        async with self._http.request(method, self._url + path, json=body, headers=self._headers) as response:
            return response.status, await response.json() if response.content_length else None

    async def outcomes(self, webhook_id: str, count: int) -> list[dict[str, Any]]:
        """The deliveries, the newest first, once there are as many."""
        while True:
            _, shown = await self("GET", f"/{webhook_id}")
            if len(shown["deliveries"]) >= count:
                return shown["deliveries"]  # type: ignore[no-any-return]
            await asyncio.sleep(0.01)


@pytest.fixture
async def server(serve: Any) -> AsyncIterator[RunningServer]:
    async with serve(linger_seconds=0.05) as running:
        yield running


@pytest.fixture
def rest(http: aiohttp.ClientSession, server: RunningServer) -> Rest:
    return Rest(http, server)


def webhook(receiver: Receiver, **more: Any) -> dict[str, Any]:
    return {"name": "mine", "url": receiver.url, "events": ["room.started", "room.ended"]} | more


async def test_events_of_rooms_come_signed_and_in_order_with_the_payload(
    server: RunningServer, rest: Rest, receiver: Receiver
) -> None:
    body = webhook(receiver, description="d", action="deploy", payload={"team": "a", "room_name": "no"})
    status, made = await rest("POST", body=body)
    assert status == 200

    async with server.client("lobby"):
        pass

    got, signature, first = await receiver.got.get()
    assert first["event"] == "room.started"
    data = first["data"]
    assert (data["room_name"], data["action"], data["team"]) == ("lobby", "deploy", "a")
    assert data["room_url"].endswith("/rooms/lobby")
    assert verify_webhook(got, signature, secret=made["secret"], now=time.time())
    _, _, second = await receiver.got.get()
    assert second["event"] == "room.ended"
    newest, oldest = await rest.outcomes(made["id"], 2)
    assert (oldest["event"], oldest["room"], oldest["outcome"]) == ("room.started", "lobby", "delivered")
    assert (newest["event"], newest["attempt"], newest["error"]) == ("room.ended", 1, None)


async def test_a_delivery_is_tried_again_and_each_try_is_noted(
    server: RunningServer, rest: Rest, receiver: Receiver
) -> None:
    receiver.statuses = [500, 429]
    _, made = await rest("POST", body=webhook(receiver, events=["room.started"]))
    async with server.client("lobby"):
        noted = await rest.outcomes(made["id"], 3)
    assert [(each["outcome"], each["status"], each["attempt"]) for each in reversed(noted)] == [
        ("retrying", 500, 1),
        ("retrying", 429, 2),
        ("delivered", None, 3),
    ]


@pytest.mark.parametrize(("statuses", "tries"), [([500, 500, 500], 3), ([410], 1)])
async def test_a_delivery_is_given_up_after_the_last_try_or_a_refusal(
    server: RunningServer, rest: Rest, receiver: Receiver, statuses: list[int], tries: int
) -> None:
    receiver.statuses = statuses
    _, made = await rest("POST", body=webhook(receiver, events=["room.started"]))
    async with server.client("lobby"):
        noted = await rest.outcomes(made["id"], tries)
    assert (noted[0]["outcome"], noted[0]["attempt"], len(noted)) == ("failed", tries, tries)
    assert "answered" in noted[0]["error"]


async def test_a_webhook_is_listed_changed_and_deleted_without_its_secret(
    server: RunningServer, rest: Rest, receiver: Receiver, http: aiohttp.ClientSession, other_key: ApiKey
) -> None:
    # As MeshAgent's client sends it.
    _, made = await rest("POST", body=webhook(receiver, description="", action=None, payload=None))
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert (await rest("GET"))[1] == {"webhooks": [shown]}

    status, changed = await rest("PUT", f"/{made['id']}", webhook(receiver, name="other", events=["room.ended"]))
    assert (status, changed["name"], changed["events"], "secret" in changed) == (200, "other", ["room.ended"], False)
    async with server.client("lobby"):
        pass
    got, signature, body = await receiver.got.get()
    assert body["event"] == "room.ended"
    assert verify_webhook(got, signature, secret=made["secret"], now=time.time())

    other = Rest(http, server, other_key)
    assert (await other("GET"))[1] == {"webhooks": []}
    assert (await other("DELETE", f"/{made['id']}"))[0] == 404
    theirs = RunningServer(server.server, other_key)
    async with theirs.client("lobby"):
        pass
    assert (await rest("DELETE", "/other"))[0] == 204
    assert (await rest("GET"))[1] == {"webhooks": []}
    async with server.client("lobby"):
        pass
    assert receiver.got.empty()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"url": "http://10.0.0.1/x"}, "url: expected an http or https URL on the public internet"),
        ({"url": "http://[::ffff:10.0.0.1]/x"}, "url: expected an http or https URL"),
        ({"url": "gopher://example.com"}, "url: expected an http or https URL"),
        ({"url": 1}, "url:"),
        ({"events": []}, "events:"),
        ({"events": ["room.exploded"]}, "events: expected some of room.started, room.ended"),
        ({"payload": "text"}, "payload: expected an object or null"),
        ({"payload": {"a": "x" * 20_000}}, "payload: expected at most"),
        ({"name": ""}, "name: expected 1 to 128"),
        ({"secret": "short"}, "secret:"),
        ({"secret": "ssh-rsa AAAAB3NzaC1yc2E"}, "secret: expected a random text, no public key"),
        ({"url": "https://xn--a/x"}, "url: expected an http or https URL"),
        ({"evnts": []}, "evnts: not a name that is known here"),
    ],
)
async def test_what_is_wrong_is_named(rest: Rest, receiver: Receiver, change: dict[str, Any], text: str) -> None:
    status, answer = await rest("POST", body=webhook(receiver) | change)
    assert (status, text in answer["error"]) == (400, True), answer


async def test_a_name_that_leads_inside_is_not_called(
    serve: Any, receiver: Receiver, http: aiohttp.ClientSession
) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    async with serve(public_url="https://rooms.example.com") as running:
        reach = running.server.parts.configured.reach
        # Names are resolved at the call; this one is this machine's own.
        url = f"http://{socket.gethostname()}:{port}/webhook"
        with pytest.raises(Exception, match="public internet"):
            await reach.send(url, "room.started", {}, secret="s" * 32, tenant=running.key.project_id)
    assert receiver.got.empty()


async def test_what_waits_when_the_server_stops_is_noted(
    serve: Any, receiver: Receiver, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRY_SECONDS", (60.0,))
    receiver.statuses = [500]
    async with serve(linger_seconds=0.05) as running:
        rest = Rest(http, running)
        _, made = await rest("POST", body=webhook(receiver))
        async with running.client("lobby"):
            await rest.outcomes(made["id"], 1)
        store = running.server.engines.configuration
    await store.open()
    entries = [json.loads(entry.content) for entry in await store.entries(made["id"])]
    assert [(each["event"], each["outcome"]) for each in entries][-1] == ("room.started", "retrying")
    assert {each["outcome"] for each in entries[:-1]} == {"not_sent"}
