"""Webhooks as they are sent."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshhost.errors import CallRefusedError
from meshhost.server.calling.webhooks import WebhookSender


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    async with aiohttp.ClientSession() as session:
        yield WebhookSender(session)


@pytest.fixture
async def host() -> AsyncIterator[Any]:
    """A host that answers what it was told; `host.headers` are those of what came."""

    class Host:
        answer = web.Response()
        headers: Any = None
        url = ""

    async def handle(request: web.Request) -> web.Response:
        Host.headers = request.headers
        return Host.answer

    app = web.Application()
    app.router.add_post("/x", handle)
    async with TestServer(app) as server:
        Host.url = str(server.make_url("/x"))
        yield Host


@pytest.mark.parametrize(
    ("body", "parsed"),
    [(b'{"ok": true}', {"ok": True}), (b"", {}), (b"[1]", {}), (b"\xff", {}), (b"[" * 60_000, {})],
    ids=range(5),
)
async def test_the_answer_is_an_object_or_nothing(sender: WebhookSender, host: Any, body: bytes, parsed: Any) -> None:
    host.answer = web.Response(body=body)
    assert await sender.send(host.url, "e", {}, secret=None) == parsed
    assert "Meshhost-Signature" not in host.headers
    assert host.headers["Meshhost-Call"] == "e"


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3.0), ("soon", None), ("-1", None), (None, None), ("9" * 400, 86_400.0)]
)
async def test_a_refusal_carries_status_and_wait(
    sender: WebhookSender, host: Any, header: str | None, seconds: float | None
) -> None:
    host.answer = web.Response(status=429, headers={} if header is None else {"Retry-After": header})
    with pytest.raises(CallRefusedError) as caught:
        await sender.send(host.url, "e", {}, secret="s" * 40)
    assert (caught.value.status, caught.value.retry_after) == (429, seconds)


async def test_an_error_names_no_credentials(sender: WebhookSender) -> None:
    with pytest.raises(CallRefusedError, match=r"http://127\.0\.0\.1:1/x cannot be reached") as caught:
        await sender.send("http://user:password@127.0.0.1:1/x?key=hidden#part", "e", {}, secret=None)
    assert caught.value.status == 503
    assert "password" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert str(caught.value).endswith("/x cannot be reached: Connection refused")


async def test_a_cookie_that_a_host_sets_is_not_sent_with_the_next_call(host: Any) -> None:
    host.answer = web.Response(headers={"Set-Cookie": "who=acme; Path=/"})
    url = host.url.replace("127.0.0.1", "localhost")
    async with WebhookSender() as sender:
        for _ in range(2):
            await sender.send(url, "e", {}, secret=None)
            host.answer = web.Response()
    assert "Cookie" not in host.headers


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..example"])
async def test_a_name_that_none_can_have_is_a_host_that_cannot_be_reached(sender: WebhookSender, name: str) -> None:
    with pytest.raises(CallRefusedError, match="cannot be reached: its name is none") as caught:
        await sender.send(f"http://{name}/x", "e", {}, secret=None)
    assert caught.value.status == 503


@pytest.mark.parametrize(
    "secret", ["", "ssh-rsa AAAA", "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----", "\ud800"]
)
async def test_a_secret_that_cannot_sign_refuses_the_call(sender: WebhookSender, host: Any, secret: str) -> None:
    with pytest.raises(CallRefusedError, match="the secret cannot sign") as caught:
        await sender.send(host.url, "e", {}, secret=secret)
    assert caught.value.status == 400
    assert host.headers is None
