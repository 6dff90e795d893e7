"""Hooks of a running server: what foreign services post, who may manage hooks, and what strangers learn."""

import hashlib
import hmac
import io
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from meshhost.identity.grants import AdminGrant, ApiScope, QueuesGrant
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.frames import Limits
from meshhost.testing.server import RunningServer
from meshhost.triggers.makers import MOST_OF_A_PARTICIPANT
from tests.integration.rooms.test_schedules import OPERATOR_KEY, Rest

PATH = "/rooms/room/hooks"


@pytest.fixture
async def rest(serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession) -> Rest:
    wire = Limits(message_bytes=100_000)
    return Rest(http, await stack.enter_async_context(serve(operator_key=OPERATOR_KEY, wire=wire)))


async def post(
    rest: Rest, url: str, body: bytes | io.BytesIO, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """As a stranger: without any credential."""
    async with rest.http.post(url, data=body, headers=headers) as response:
        return response.status, await response.text()


def github(secret: str, body: bytes, delivery: str = "d1") -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={digest}",
        "X-GitHub-Delivery": delivery,
        "Content-Type": "application/json",
    }


async def test_a_signed_delivery_becomes_a_message_and_wakes_the_room(rest: Rest) -> None:
    status, made = await rest("POST", PATH, {"queue": "jobs", "verify": "github", "name": "repo"})
    assert status == 200
    assert made["url"] == f"{rest.server.url}/hooks/{made['id']}"
    body = b'{"ref": "main"}'
    for _ in range(2):
        status, answer = await post(rest, made["url"], body, github(made["secret"], body))
        assert (status, json.loads(answer)) == (200, {"id": "1"})
    status, answer = await post(rest, made["url"], body + b" ", github(made["secret"], body))
    assert (status, "X-Hub-Signature-256" in answer) == (401, True)

    room = RoomKey(TenantId(rest.server.key.project_id), "room")
    opened = rest.server.server.parts.directory.find(room)
    assert opened is not None
    assert opened.is_awake
    assert await rest.messages("jobs") == [{"ref": "main"}]
    _, shown = await rest("GET", f"{PATH}/{made['id']}")
    assert [(each["outcome"], each["bytes"]) for each in shown["deliveries"]] == [
        ("refused", 16),
        ("stored", 15),
        ("stored", 15),
    ]
    assert "secret" not in shown
    _, metrics = await rest("GET", "/metrics")
    assert 'meshhost_triggers_total{kind="hook",outcome="stored"} 2.0' in metrics
    assert 'meshhost_triggers_total{kind="hook",outcome="refused"} 1.0' in metrics
    assert (await rest("GET", PATH))[1]["hooks"] == [{name: shown[name] for name in shown if name != "deliveries"}]


async def test_a_hook_is_tested_gets_another_secret_and_is_deleted(rest: Rest) -> None:
    _, made = await rest("POST", PATH, {"queue": "jobs"})
    hook = f"{PATH}/{made['id']}"
    assert (await rest("POST", f"{hook}/test"))[1] == {"id": "1"}
    _, changed = await rest("POST", f"{hook}/secret", {})
    assert changed["secret"] not in {made["secret"], None}
    assert (await rest("POST", f"{hook}/secret", {"secret": "short"}))[0] == 400
    assert (await rest("POST", f"{hook}/secret", {"secret": 5}))[0] == 400
    assert (await rest("POST", f"{hook}/test"))[1] == {"id": "2"}
    assert (await rest("DELETE", hook))[0] == 204
    assert (await rest("GET", hook))[0] == 404
    assert (await post(rest, made["url"], b"1"))[0] == 404


async def test_slack_is_answered_its_challenge_as_text(rest: Rest) -> None:
    _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "slack", "secret": "the secret of slack"})
    now, body = str(int(time.time())), b'{"type": "url_verification", "challenge": "c"}'
    digest = hmac.new(b"the secret of slack", f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={digest}"}
    assert await post(rest, made["url"], body, headers | {"Content-Type": "application/json"}) == (200, "c")


async def test_a_stranger_learns_nothing_and_is_slowed_down(rest: Rest) -> None:
    _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "github"})
    _, fresh = await rest("POST", PATH, {"queue": "jobs", "verify": "github"})
    assert (await post(rest, made["url"], b"1", github(made["secret"], b"1")))[0] == 200
    unknown = f"{rest.server.url}/hooks/{'0' * 46}"
    first = await post(rest, unknown, b"1")
    assert first == (404, '{"error": "no such hook"}')
    assert [await post(rest, f"{rest.server.url}/hooks/x", b"1") for _ in range(3)] == [first] * 3
    statuses = [(await post(rest, unknown, b"1"))[0] for _ in range(30)]
    assert (statuses[0], statuses[-1]) == (404, 429)
    # A service that was there before goes on, one that is new waits; wrong signatures are not kept any more.
    assert (await post(rest, made["url"], b"2", github(made["secret"], b"2", "d2")))[0] == 200
    assert (await post(rest, fresh["url"], b"2", github(fresh["secret"], b"2")))[0] == 429
    assert (await post(rest, made["url"], b"3", github(made["secret"], b"2")))[0] == 429
    _, shown = await rest("GET", f"{PATH}/{made['id']}")
    assert [each["outcome"] for each in shown["deliveries"]] == ["stored", "stored"]


async def test_a_body_that_is_too_large_is_refused(rest: Rest) -> None:
    _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "none"})
    assert (await post(rest, made["url"], b"1" * 200_000))[0] == 413
    assert (await post(rest, made["url"], b"{", {"Content-Type": "application/json"}))[0] == 400
    assert (await post(rest, made["url"], b"1"))[0] == 200


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", b"[" + b"[]," * 500_000 + b"0]"),
        ("application/x-www-form-urlencoded", b"payload=" + b"%41" * 500_000),
        ("application/x-www-form-urlencoded", b"payload=[" + b"[]," * 500_000 + b"0]"),
    ],
)
async def test_a_body_that_is_much_more_when_it_is_read_is_refused(
    serve: Any, stack: AsyncExitStack, http: aiohttp.ClientSession, media: str, body: bytes
) -> None:
    rest = Rest(http, await stack.enter_async_context(serve()))
    _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "none"})
    assert (await post(rest, made["url"], io.BytesIO(body), {"Content-Type": media}))[0] == 413


async def test_a_suspended_tenant_has_no_hooks_to_post_to(rest: Rest) -> None:
    _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "none"})
    tenant = f"/tenants/{rest.server.key.project_id}"
    await rest("POST", f"{tenant}/suspend", {}, bearer=OPERATOR_KEY)
    assert await post(rest, made["url"], b"1") == (404, '{"error": "no such hook"}')
    await rest("POST", f"{tenant}/resume", {}, bearer=OPERATOR_KEY)
    assert (await post(rest, made["url"], b"1"))[0] == 200
    assert (await rest("DELETE", f"{tenant}/rooms/room"))[1]["deleted"]
    assert (await post(rest, made["url"], b"1"))[0] == 404


async def test_a_participant_manages_hooks_of_its_queues_only(rest: Rest) -> None:
    mine = rest.server.token("room", scope=ApiScope(queues=QueuesGrant(send=["jobs"])))
    _, made = await rest("POST", PATH, {"queue": "jobs"}, bearer=mine)
    assert made["made_by"] == "tester"
    assert (await rest("POST", PATH, {"queue": "mail"}, bearer=mine))[0] == 403
    _, other = await rest("POST", PATH, {"queue": "mail"})
    assert [each["id"] for each in (await rest("GET", PATH, bearer=mine))[1]["hooks"]] == [made["id"]]
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/secret")):
        assert (await rest(method, f"{PATH}/{other['id']}{path}", {}, bearer=mine))[0] == 404


def token_of(rest: Rest, name: str, *, key: str | None = None, admin: bool = False) -> str:
    """A token that may send to `jobs`, signed with another key than the server's own where one is given."""
    scope = ApiScope(queues=QueuesGrant(send=["jobs"], receive=[]), admin=AdminGrant() if admin else None)
    signer = rest.server if key is None else RunningServer(rest.server.server, parse_api_key(key))
    return signer.token("room", name=name, scope=scope)


async def another_key(rest: Rest, role: str = "developer") -> tuple[str, str]:
    """Another key of the tenant, and its id."""
    body = {"name": role, "role": role}
    status, made = await rest("POST", f"/tenants/{rest.server.key.project_id}/keys", body, bearer=OPERATOR_KEY)
    assert status == 200, made
    return made["value"], parse_api_key(made["value"]).id


async def test_a_participant_manages_and_sees_the_hooks_that_it_made_only(rest: Rest) -> None:
    key, _ = await another_key(rest)
    mine, admin = token_of(rest, "mine"), token_of(rest, "chief", admin=True)
    _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "none"}, bearer=mine)
    assert (made["made_by"], made["key_id"]) == ("mine", rest.server.key.id)
    await rest("POST", PATH, {"queue": "jobs"})
    hook = f"{PATH}/{made['id']}"
    for other in (token_of(rest, "other"), token_of(rest, "mine", key=key)):
        assert (await rest("GET", PATH, bearer=other))[1] == {"hooks": []}
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/secret")):
            assert (await rest(method, hook + path, {}, bearer=other))[0] == 404
    assert [each["id"] for each in (await rest("GET", PATH, bearer=mine))[1]["hooks"]] == [made["id"]]
    assert len((await rest("GET", PATH, bearer=admin))[1]["hooks"]) == 2
    assert (await rest("POST", f"{hook}/test", bearer=mine))[0] == 200
    assert (await rest("DELETE", hook, bearer=admin))[0] == 204


async def test_a_participant_holds_a_share_of_the_hooks_of_a_room_only(rest: Rest) -> None:
    made = [
        (await rest("POST", PATH, {"queue": "jobs"}, bearer=token_of(rest, "mine")))[0]
        for _ in range(MOST_OF_A_PARTICIPANT)
    ]
    assert {*made} == {200}
    status, answer = await rest("POST", PATH, {"queue": "jobs"}, bearer=token_of(rest, "mine"))
    assert (status, "20 hooks in this room already" in answer["error"]) == (429, True)
    assert (await rest("POST", PATH, {"queue": "jobs"}, bearer=token_of(rest, "other")))[0] == 200
    assert (await rest("POST", PATH, {"queue": "jobs"}))[0] == 200


async def test_a_hook_stops_with_the_key_of_its_maker_until_another_key_keeps_it(rest: Rest) -> None:
    key, key_id = await another_key(rest)
    for maker in (key, token_of(rest, "mine", key=key)):
        _, made = await rest("POST", PATH, {"queue": "jobs", "verify": "none"}, bearer=maker)
        assert (await post(rest, made["url"], b"1"))[0] == 200
    _, other = await rest("POST", PATH, {"queue": "jobs", "verify": "none"})
    await rest("DELETE", f"/tenants/{rest.server.key.project_id}/keys/{key_id}")
    assert await post(rest, made["url"], b"1") == (404, '{"error": "no such hook"}')
    assert (await post(rest, other["url"], b"1"))[0] == 200
    _, listed = await rest("GET", PATH)
    assert ["another key" in (each["error"] or "") for each in listed["hooks"]] == [True, True, False]
    assert (await rest("GET", f"{PATH}/{made['id']}"))[1]["made_by"] == "mine"
    _, kept = await rest("POST", f"{PATH}/{made['id']}/secret", {})
    assert (kept["made_by"], kept["key_id"], kept["error"]) == ("", rest.server.key.id, None)
    assert (await post(rest, made["url"], b"1"))[0] == 200


async def test_a_hook_goes_with_an_archive_without_its_address_and_secret(rest: Rest) -> None:
    _, made = await rest("POST", PATH, {"queue": "jobs", "name": "repo"})
    _, open_hook = await rest("POST", PATH, {"queue": "jobs", "verify": "none"})
    tenant = f"/tenants/{rest.server.key.project_id}"
    headers = {"Authorization": f"Bearer {rest.server.api_key}"}
    async with rest.http.get(f"{rest.server.url}{tenant}/rooms/room/archive", headers=headers) as response:
        archive = await response.read()
    for hidden in (made["id"], made["secret"], open_hook["id"]):
        assert hidden.encode() not in archive
    url = f"{rest.server.url}{tenant}/rooms/copy/archive"
    async with rest.http.put(url, data=archive, headers=headers) as response:
        assert (await response.json())["triggers"] == 2
    _, copied = await rest("GET", "/rooms/copy/hooks")
    assert [(each["name"], each["ready"]) for each in copied["hooks"]] == [("repo", False), ("", True)]
    assert (await rest("POST", f"/rooms/copy/hooks/{copied['hooks'][0]['id']}/test"))[0] == 401
    await rest("POST", f"/rooms/copy/hooks/{copied['hooks'][0]['id']}/secret", {})
    assert (await rest("POST", f"/rooms/copy/hooks/{copied['hooks'][0]['id']}/test"))[0] == 200
