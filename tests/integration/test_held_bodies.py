"""Bodies that are read whole: half-sent ones take a bounded share of the memory, and those of others get through."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

import meshhost
from meshhost.app.config_file import ServerFile
from meshhost.edge.bodies import BodyDisplacedError, HeldBodies, read_body
from meshhost.edge.limits import EdgeLimits
from meshhost.edge.listener import GuardedSite
from meshhost.edge.watched import know_sender, watch_requests
from meshhost.errors import TooLargeError
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.webhooks import SIGNATURE_HEADERS, sign_webhook, webhook_body
from meshhost.server.http.bodies import UNKNOWN_SENDER_BYTES
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer, running_server

SIZE, LIMIT, MANY = 100_000, 400_000, 12
LAST = b"x"
SECRET = "a-secret-of-thirty-two-characters"


async def take(request: web.Request) -> web.Response:
    know_sender(request, request.headers.get("X-Sender"))
    try:
        body = await read_body(request, most_bytes=2 * SIZE)
    except BodyDisplacedError as error:
        return web.Response(status=503, text=str(error))
    except ConnectionError:  # the sender is gone
        return web.Response(status=400)
    except TooLargeError as error:
        return web.Response(status=413, text=str(error))
    assert await read_body(request, most_bytes=2 * SIZE) == body
    return web.Response(text=str(len(body)))


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, HeldBodies]]:
    app = web.Application()
    app.add_routes([web.post("/take", take)])
    watch_requests(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = GuardedSite(runner, "127.0.0.1", 0, limits=EdgeLimits(max_body_bytes=LIMIT))
    await site.start()
    try:
        yield runner.addresses[0][1], site.bodies
    finally:
        server = runner.server
        await until(lambda: server is None or not server.connections)
        await runner.cleanup()


async def half_sent(
    port: int, path: str, *, size: int = SIZE, headers: Sequence[str] = ()
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which all but the last byte of a body is sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *headers, "", ""]
    writer.write("\r\n".join(lines).encode() + bytes(size - 1))
    await writer.drain()
    return reader, writer


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - it is about bytes that arrive, of which nobody tells
            await asyncio.sleep(0.005)


async def finish(begun: Sequence[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    """Send what is missing, also where it is not wanted any more: the server ends a connection when it has all of it."""
    for _, writer in begun:
        writer.write(LAST)
        writer.write_eof()
    for reader, writer in begun:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                await reader.read()
        writer.close()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n")


async def refused_of(begun: Sequence[tuple[asyncio.StreamReader, asyncio.StreamWriter]], count: int) -> set[bytes]:
    """The statuses of the first `count` answers; whose they are does not matter."""
    waiting = {asyncio.create_task(answer_of(reader)) for reader, _ in begun}
    found: list[bytes] = []
    while len(found) < count:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        found += [each.result().split()[1] for each in done]
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(found) == count
    return set(found)


async def test_half_sent_bodies_displace_one_another_and_not_a_whole_one() -> None:
    async with listening() as (port, bodies), aiohttp.ClientSession() as http:
        begun = [await half_sent(port, "/take") for _ in range(MANY)]
        assert await refused_of(begun, MANY - LIMIT // SIZE) == {b"503"}
        assert bodies.total <= LIMIT
        async with http.post(f"http://127.0.0.1:{port}/take", data=bytes(SIZE)) as answer:
            assert (answer.status, await answer.text()) == (200, str(SIZE))
        await finish(begun)
        await until(lambda: not bodies.total)


async def test_a_flood_of_one_sender_leaves_the_unfinished_body_of_another() -> None:
    async with listening() as (port, bodies):
        quiet, last = await half_sent(port, "/take", headers=["X-Sender: quiet"])
        await until(lambda: bodies.total == SIZE - 1)
        flood = [await half_sent(port, "/take", headers=["X-Sender: loud"]) for _ in range(MANY)]
        assert await refused_of(flood, MANY - (LIMIT - SIZE) // SIZE) == {b"503"}
        last.write(LAST)
        assert b"200" in await answer_of(quiet)
        await finish([*flood, (quiet, last)])


async def test_a_body_longer_than_its_route_takes_is_refused_whether_it_says_so_or_not() -> None:
    async with listening() as (port, _), aiohttp.ClientSession() as http:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield bytes(SIZE)

        for data in (bytes(2 * SIZE + 1), pieces()):
            async with http.post(f"http://127.0.0.1:{port}/take", data=data) as answer:
                assert answer.status == 413


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    file = ServerFile.model_validate({"edge": {"max_body_bytes": LIMIT}})
    async with running_server(tmp_path, file=file) as server:
        yield server


async def test_the_room_server_answers_while_a_key_holder_holds_bodies_half_sent(server: RunningServer) -> None:
    headers = [f"Authorization: Bearer {server.api_key}"]
    path = "/rooms/room/queues/q/replay"
    begun = [await half_sent(server.server.port, path, headers=headers) for _ in range(MANY)]
    assert await refused_of(begun, MANY - LIMIT // SIZE) == {b"503"}
    bearer = {"Authorization": f"Bearer {server.api_key}"}
    url = f"{server.url}/accounts/projects/{server.key.project_id}/rooms"
    async with aiohttp.request("POST", url, json={"name": "new"}, headers=bearer) as answer:
        assert answer.status == 200
    await finish(begun)


async def test_who_is_not_known_yet_may_send_a_small_body_only(server: RunningServer) -> None:
    too_long = UNKNOWN_SENDER_BYTES + 1
    for path in ("/studio/api/session", "/oauth/token"):
        form = ["Content-Type: application/x-www-form-urlencoded"]
        reader, writer = await half_sent(server.server.port, path, size=too_long, headers=form)
        assert b"413" in await answer_of(reader)
        await finish([(reader, writer)])


@contextlib.asynccontextmanager
async def hosting(server: RunningServer, secret: str) -> AsyncIterator[int]:
    host = ServiceHost(port=0, webhook_secret=secret, allowed_room_urls=[server.url])
    host.add_path("/agent", cls=QuietAgent)
    host.tune(edge=EdgeLimits(max_body_bytes=LIMIT))
    await host.start()
    try:
        yield host.port
    finally:
        await host.stop()


def call_of(server: RunningServer) -> bytes:
    call = {
        "room_name": "room",
        "room_url": server.server.room_url("room"),
        "token": server.token("room", name="agent", role="agent"),
        "arguments": {"padding": "x" * SIZE},
    }
    return webhook_body("room.call", call)


async def test_a_host_takes_a_call_while_others_are_half_sent(server: RunningServer) -> None:
    async with hosting(server, "") as port:
        begun = [await half_sent(port, "/agent") for _ in range(MANY)]
        assert await refused_of(begun, MANY - LIMIT // SIZE) == {b"503"}
        async with aiohttp.request("POST", f"http://127.0.0.1:{port}/agent", data=call_of(server)) as answer:
            assert answer.status == 200, await answer.text()
        await finish(begun)


@pytest.mark.parametrize("signed", [None, "Bearer x.y.z", sign_webhook(b"", secret=SECRET, now=1.0)])
async def test_a_host_reads_no_body_without_a_fresh_signature_of_its_secret(
    server: RunningServer, signed: str | None
) -> None:
    headers = [] if signed is None else [f"{SIGNATURE_HEADERS[0]}: {signed}"]
    async with hosting(server, SECRET) as port:
        begun = [await half_sent(port, "/agent", headers=headers) for _ in range(MANY)]
        assert await refused_of(begun, MANY) == {b"401"}
        body = call_of(server)
        good = {SIGNATURE_HEADERS[0]: sign_webhook(body, secret=SECRET, now=time.time())}
        async with aiohttp.request("POST", f"http://127.0.0.1:{port}/agent", data=body, headers=good) as answer:
            assert answer.status == 200, await answer.text()
        await finish(begun)


READS = re.compile(r"\brequest\.(read|json|text|post|multipart)\(")
# They have a budget of their own (`BodyReader.held`), or are no server of ours.
ELSEWHERE = {"edge/bodies.py", "server/http/bodies.py", "testing/scripted_upstream.py"}


def test_every_route_reads_bodies_where_they_are_counted() -> None:
    root = Path(meshhost.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if READS.search(path.read_text())}
    assert {path for path in found if not path.startswith("gateway/")} <= ELSEWHERE
