"""Hooks: what is posted to one becomes one message, once; what is refused is known to its owner, without bodies and secrets."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from multidict import CIMultiDict

from meshhost.errors import (
    InvalidRequestError,
    InvalidTokenError,
    LimitExceededError,
    NotFoundError,
    RoomError,
    TenantSuspendedError,
)
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.queues.over_engine import queue_service
from meshhost.queues.service import QueueService
from meshhost.server.http.triggers.hooks import RefusedAddresses
from meshhost.stores.engine import Engine
from meshhost.stores.memory.triggers import MemoryTriggerStore
from meshhost.stores.messages import StoredMessage
from meshhost.stores.queues import QueueKey
from meshhost.stores.triggers.contract import LogEntry, TriggerLimits
from meshhost.testing.clock import FakeClock
from meshhost.triggers.hooks import Accepted, Hook, Hooks, HookSpec
from meshhost.triggers.signatures import Scheme

ROOM = RoomKey(TenantId("acme"), "lobby")
JOBS = QueueKey(ROOM, "jobs")
JSON = {"Content-Type": "application/json"}
SECRET = "a secret of eight or more"


@pytest.fixture
async def queues(engine: Engine, clock: FakeClock) -> AsyncIterator[QueueService]:
    async with queue_service(engine, clock=clock) as service:
        yield service


@pytest.fixture
def hooks(engine: Engine, queues: QueueService, clock: FakeClock) -> Hooks:
    return Hooks(engine.triggers, queues, clock=clock)


async def made(hooks: Hooks, verify: str = "none", secret: str | None = None, **values: Any) -> Hook:
    return await hooks.create(ROOM, HookSpec.parse({"queue": "jobs", "verify": verify} | values), secret)


async def deliver(hooks: Hooks, hook: Hook, body: bytes, headers: dict[str, str] | None = None) -> Accepted:
    return await hooks.deliver(hook, CIMultiDict(headers or JSON), body)


async def stored(queues: QueueService) -> list[StoredMessage]:
    return [*await queues.store.stored(JOBS, after=0, limit=100, max_bytes=10**9)]


def github(body: bytes, delivery: str = "d1", **more: str) -> dict[str, str]:
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    named = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": delivery, "X-GitHub-Event": "push"}
    return JSON | named | more


async def test_a_delivery_becomes_a_message_with_chosen_headers(hooks: Hooks, queues: QueueService) -> None:
    hook = await made(hooks, "github", SECRET, name="repo", headers=["X-GitHub-Hook-ID", "Cookie"])
    body = b'{"ref": "main"}'
    headers = github(body, **{"X-GitHub-Hook-Id": "7", "Cookie": "secret", "User-Agent": "x", "traceparent": "t"})
    assert await deliver(hooks, hook, body, headers) == Accepted(1)

    [message] = await stored(queues)
    assert json.loads(message.body) == {"ref": "main"}
    assert message.headers == {
        "traceparent": "t",
        "content-type": "application/json",
        "x-github-event": "push",
        "x-github-delivery": "d1",
        "x-github-hook-id": "7",
        "meshhost-hook": "repo",
        "meshhost-hook-id": hook.id[:20],
    }


async def test_a_repeated_delivery_is_stored_once(hooks: Hooks, queues: QueueService) -> None:
    hook, other = await made(hooks, "github", SECRET), await made(hooks, "github", SECRET)
    for _ in range(2):
        assert await deliver(hooks, hook, b"1", github(b"1")) == Accepted(1)
    assert await deliver(hooks, hook, b"1", github(b"1", "d2")) == Accepted(2)
    assert await deliver(hooks, other, b"1", github(b"1")) == Accepted(3)
    open_hook = await made(hooks)
    for _ in range(2):
        assert await deliver(hooks, open_hook, b"1", JSON | {"Idempotency-Key": "k"}) == Accepted(4)
    assert (await deliver(hooks, open_hook, b"1", JSON | {"Idempotency-Key": "\n"})).message_id == 5
    assert (await deliver(hooks, open_hook, b"1")).message_id == 6
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"}
    for _ in range(2):
        assert (await deliver(hooks, open_hook, b"1", event)).message_id == 7
    assert len(await stored(queues)) == 7
    assert (await stored(queues))[-1].headers["ce-id"] == "1"


@pytest.mark.parametrize(
    ("media", "body", "message"),
    [
        ("application/json", b"[1, 2]", [1, 2]),
        ("", b'{"a": 1}', {"a": 1}),
        ("application/json", b"", None),
        ("text/plain; charset=utf-8", "grüße".encode(), "grüße"),
        ("application/octet-stream", b"\0\1\2", "AAEC"),
        ("application/x-www-form-urlencoded", b"a=1&b=2&b=3&c=", {"a": "1", "b": ["2", "3"], "c": ""}),
        ("application/x-www-form-urlencoded", b"payload=%7B%22a%22%3A1%7D", {"a": 1}),
        ("application/x-www-form-urlencoded", b"payload=x&a=1", {"payload": "x", "a": "1"}),
    ],
)
async def test_bodies_of_all_kinds_become_json(
    hooks: Hooks, queues: QueueService, media: str, body: bytes, message: Any
) -> None:
    await deliver(hooks, await made(hooks), body, {"Content-Type": media} if media else {"X": "y"})
    assert [json.loads(each.body) for each in await stored(queues)] == [message]


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", b"{"),
        ("text/plain", b"\xff"),
        ("application/x-www-form-urlencoded", b"\xff"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1001)),
    ],
)
async def test_a_body_that_is_not_what_it_says_is_refused(hooks: Hooks, media: str, body: bytes) -> None:
    hook = await made(hooks)
    with pytest.raises(InvalidRequestError):
        await deliver(hooks, hook, body, {"Content-Type": media})
    [entry] = await hooks.deliveries(hook)
    assert (entry["outcome"], entry["bytes"]) == ("failed", len(body))


async def test_a_wrong_signature_stores_nothing(hooks: Hooks, queues: QueueService) -> None:
    hook = await made(hooks, "github", SECRET)
    with pytest.raises(InvalidTokenError) as error:
        await deliver(hooks, hook, b"2", github(b"1"))
    await hooks.log_refusal(hook, error.value, 1)
    with pytest.raises(NotFoundError):
        await stored(queues)
    [entry] = await hooks.deliveries(hook)
    assert entry["outcome"] == "refused"
    assert "signature" in entry["error"]


async def test_the_log_has_neither_bodies_nor_secrets(hooks: Hooks, engine: Engine) -> None:
    hook = await made(hooks, "github", SECRET)
    await deliver(hooks, hook, b'"a confidential body"', github(b'"a confidential body"'))
    shown = json.dumps([*await hooks.deliveries(hook)]) + repr(hook) + json.dumps(hook.shown())
    assert "confidential" not in shown
    assert SECRET not in shown
    [entry] = await hooks.deliveries(hook)
    assert entry == {
        "at": entry["at"],
        "outcome": "stored",
        "bytes": 21,
        "message_id": "1",
        "delivery": "d1",
    }


async def test_slack_gets_its_challenge_back(hooks: Hooks, queues: QueueService, clock: FakeClock) -> None:
    hook = await made(hooks, "slack", SECRET)

    def signed(body: bytes) -> dict[str, str]:
        time = str(int(clock.time()))
        digest = hmac.new(SECRET.encode(), f"v0:{time}:".encode() + body, hashlib.sha256).hexdigest()
        return JSON | {"X-Slack-Request-Timestamp": time, "X-Slack-Signature": f"v0={digest}"}

    body = b'{"type": "url_verification", "challenge": "abc"}'
    assert await deliver(hooks, hook, body, signed(body)) == Accepted(None, "abc")
    with pytest.raises(InvalidTokenError):
        await deliver(hooks, hook, body, JSON)
    assert (await deliver(hooks, hook, b"[]", signed(b"[]"))).message_id == 1
    nothing = b'{"type": "url_verification"}'
    assert await deliver(hooks, hook, nothing, signed(nothing)) == Accepted(None, "")
    assert [entry["outcome"] for entry in await hooks.deliveries(hook)] == ["challenge", "stored", "challenge"]


@pytest.mark.parametrize("scheme", Scheme)
async def test_a_test_goes_the_whole_way(hooks: Hooks, queues: QueueService, scheme: Scheme) -> None:
    secret = SECRET if scheme in {Scheme.SLACK, Scheme.STRIPE} else None
    hook = await made(hooks, scheme, secret)
    assert await hooks.test(hook) == Accepted(1)
    [message] = await stored(queues)
    assert json.loads(message.body)["type"] == "meshhost.test"


async def test_a_secret_is_made_given_and_changed(hooks: Hooks) -> None:
    hook = await made(hooks, "standard-webhooks")
    assert (hook.secret or "").startswith("whsec_")
    changed = await hooks.change_secret(hook)
    assert changed.secret not in {hook.secret, None}
    assert (await hooks.get(ROOM.tenant, hook.id)).secret == changed.secret
    with pytest.raises(RoomError, match="changed at the same time"):
        await hooks.change_secret(hook)
    with pytest.raises(InvalidRequestError, match="signing secret that stripe shows"):
        await made(hooks, "stripe")
    with pytest.raises(InvalidRequestError, match="secret: a hook that verifies nothing has none"):
        await made(hooks, "none", SECRET)
    bare = Hook("0" * 46, ROOM, HookSpec.parse({"queue": "jobs"}), 0.0)
    assert not bare.shown()["ready"]
    with pytest.raises(InvalidTokenError, match="no secret yet"):
        await deliver(hooks, bare, b"1")


async def test_an_unknown_hook_and_one_of_a_suspended_tenant_look_alike(
    engine: Engine, queues: QueueService, clock: FakeClock
) -> None:
    def check(room: RoomKey) -> None:
        raise TenantSuspendedError("unpaid")

    hooks = Hooks(engine.triggers, queues, clock=clock, check_room=check)
    hook = await made(hooks)
    for hook_id in (hook.id, "0" * 46, "x", "../etc"):
        with pytest.raises(NotFoundError, match=r"^no such hook$"):
            await hooks.receive(hook_id)
    assert (await Hooks(engine.triggers, queues).receive(hook.id)).id == hook.id


async def test_hooks_belong_to_a_tenant_and_are_limited(hooks: Hooks, engine: Engine, queues: QueueService) -> None:
    hook = await made(hooks)
    assert [each.id for each in await hooks.list(ROOM.tenant, "lobby")] == [hook.id]
    assert await hooks.list(TenantId("rival")) == []
    for tenant, room in ((TenantId("rival"), None), (ROOM.tenant, "mail")):
        with pytest.raises(NotFoundError):
            await hooks.get(tenant, hook.id, room=room)
    with pytest.raises(LimitExceededError):
        await made(Hooks(engine.triggers, queues, limits=TriggerLimits(1, 1)))
    await hooks.delete(hook)
    with pytest.raises(NotFoundError):
        await hooks.get(ROOM.tenant, hook.id)
    with pytest.raises(InvalidRequestError, match="verify: "):
        HookSpec.parse({"queue": "jobs", "verify": "md5"})
    with pytest.raises(InvalidRequestError, match=r"headers\.0: "):
        HookSpec.parse({"queue": "jobs", "headers": ["a b"]})


async def test_what_was_stored_is_answered_although_its_log_is_not_written(
    queues: QueueService, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(MemoryTriggerStore):
        async def add_entry(self, trigger_id: str, entry: LogEntry) -> None:
            raise OSError("no space left")

    hooks = Hooks(Full(is_open=True), queues, clock=clock)
    assert await deliver(hooks, await made(hooks), b"1") == Accepted(1)
    assert "the log of a hook is not written" in caplog.text


async def test_an_address_that_is_refused_too_often_has_to_wait(clock: FakeClock) -> None:
    refused = RefusedAddresses(burst=2, seconds=5.0, most=2, clock=clock)
    assert refused.wait("a") == 0.0
    for _ in range(2):
        refused.count("a")
    assert refused.wait("a") == 5.0
    assert refused.wait("b") == 0.0
    clock.skip(5.0)
    assert refused.wait("a") == 0.0
    refused.count("a")
    for other in ("b", "c"):
        refused.count(other)
    assert refused.wait("a") == 0.0  # forgotten
    await asyncio.sleep(0)


def test_a_hook_keeps_no_header_that_only_the_server_sets() -> None:
    with pytest.raises(InvalidRequestError, match="headers: expected no names that begin with 'meshhost-'"):
        HookSpec.parse({"queue": "jobs", "headers": ["Meshhost-Schedule"]})
