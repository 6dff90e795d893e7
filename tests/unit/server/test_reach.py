"""What tenants may let the server call: bad addresses are refused with words, and one tenant's calls hold up no other's."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest

from meshhost.errors import CallRefusedError, InvalidRequestError
from meshhost.identity.tenant import TenantId
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.configured.reach import MOST_AT_ONCE, TenantReach

ACME, BETA = TenantId("acme"), TenantId("beta")


@pytest.fixture
async def reach() -> AsyncIterator[TenantReach]:
    async with WebhookSender() as sender, TenantReach([], host=None, sender=sender) as made:
        yield made


@pytest.mark.parametrize("url", ["http://xn--a/", "http://[::127.0.0.1]/", "http://169.254.169.254/"])
async def test_an_address_that_may_not_be_called_is_refused_when_it_is_named_and_when_it_is_called(
    reach: TenantReach, url: str
) -> None:
    with pytest.raises(InvalidRequestError, match="expected an http or https URL on the public internet"):
        reach.check("url", url)
    with pytest.raises(CallRefusedError) as caught:
        await reach.send(url, "e", {}, secret=None, tenant=ACME)
    assert caught.value.status == 403


async def test_hosts_of_one_tenant_that_do_not_answer_hold_up_no_other_tenant() -> None:
    called: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    silent = await asyncio.start_server(lambda _, writer: called.put_nowait(writer), "127.0.0.1", 0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    quick = await asyncio.start_server(answer, "127.0.0.1", 0)
    slow_url, quick_url = (f"http://127.0.0.1:{each.sockets[0].getsockname()[1]}/" for each in (silent, quick))
    async with WebhookSender() as sender, TenantReach([], host="127.0.0.1", sender=sender) as reach:
        calls = [asyncio.ensure_future(reach.send(slow_url, "e", {}, secret=None, tenant=ACME)) for _ in range(150)]
        async with asyncio.timeout(10):
            held = [await called.get() for _ in range(MOST_AT_ONCE)]
            assert await reach.send(quick_url, "e", {}, secret=None, tenant=BETA) == {}
        assert called.empty()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    for writer in held:
        writer.close()
    silent.close()
    quick.close()


async def test_a_name_that_nobody_answers_for_takes_no_thread_of_the_server(
    reach: TenantReach, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, asked = threading.Event(), asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def unanswered(*_: object, **__: object) -> None:
        loop.call_soon_threadsafe(asked.release)
        answered.wait(10)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    send = [reach.send(f"http://{n}.example/", "e", {}, secret=None, tenant=TenantId(f"t{n}")) for n in range(40)]
    calls = [asyncio.ensure_future(each) for each in send]
    try:
        for _ in calls:
            async with asyncio.timeout(5):
                await asked.acquire()
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        answered.set()
        await asyncio.gather(*calls, return_exceptions=True)
