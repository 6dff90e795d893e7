"""Half-sent requests over raw sockets: they end by themselves, and nobody else notices them."""

import ast
import asyncio
import contextlib
import io
import itertools
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from socket import AF_INET, create_connection

import aiohttp
import psutil
import pytest
from aiohttp import web

from meshhost.edge import descriptors, listener
from meshhost.edge.limits import EdgeLimits
from meshhost.edge.listener import GuardedSite
from meshhost.edge.pace import Pace
from meshhost.edge.watched import know_sender, watch_requests
from meshhost.loopback import is_loopback

HALF = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
LARGE = 20_000_000
OTHERS_SECONDS = 0.05
WHOLE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def live(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def begun(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    await request.read()
    return response


async def large(_: web.Request) -> web.Response:
    return web.Response(body=io.BytesIO(bytes(LARGE)))


async def patient(request: web.Request) -> web.Response:
    await asyncio.sleep(2.5)
    return web.Response(text=str(len(await request.read())))


async def busy(_: web.Request) -> web.Response:
    raise web.HTTPTooManyRequests


async def busy_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=429)
    await response.prepare(request)
    await response.write(b"busy")
    return response


async def others(_: web.Request) -> web.Response:
    """Waits while another task works."""

    async def work() -> None:
        end = time.thread_time() + OTHERS_SECONDS
        while time.thread_time() < end:
            pass

    await asyncio.create_task(work())
    return web.Response(text="ok")


async def socket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for message in response:
        await response.send_str(message.data)
    return response


@web.middleware
async def knowing(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if request.headers.get("Authorization") != "wrong":
        know_sender(request)
    return await handler(request)


@contextlib.asynccontextmanager
async def served(host: str = "127.0.0.1", **limits: float) -> AsyncIterator[int]:
    app = web.Application(client_max_size=2_000_000, middlewares=[knowing])
    app.add_routes([web.get("/livez", live), web.post("/echo", echo), web.get("/socket", socket)])
    app.add_routes([web.get("/busy", busy), web.get("/busy/stream", busy_stream), web.get("/others", others)])
    app.add_routes([web.post("/begun", begun), web.post("/patient", patient), web.get("/large", large)])
    watch_requests(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await GuardedSite(runner, host, 0, limits=EdgeLimits(**limits)).start()  # type: ignore[arg-type]
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Raw:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, data: bytes = b"", *, host: str = "127.0.0.1") -> "Raw":
        raw = cls(*await asyncio.open_connection(host, port))
        raw.writer.write(data)
        return raw

    async def rest(self, *, timeout: float = 5.0) -> bytes:
        """All that comes until the server closes."""
        try:
            async with asyncio.timeout(timeout):
                return await self.reader.read()
        except ConnectionError:
            return b""
        finally:
            self.writer.close()


@pytest.mark.parametrize("sent", [b"", b"G", HALF, WHOLE + HALF], ids=["nothing", "a byte", "half", "one and a half"])
async def test_headers_have_a_deadline(sent: bytes) -> None:
    async with served(header_seconds=0.3) as port:
        raw = await Raw.open(port)
        if sent.startswith(WHOLE):
            raw.writer.write(WHOLE)
            assert b"200" in await raw.reader.readuntil(b"ok")
            sent = sent.removeprefix(WHOLE)
        raw.writer.write(sent)
        assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")


async def test_slow_drops_do_not_extend_the_deadline() -> None:
    async with served(header_seconds=0.5) as port:
        raw = await Raw.open(port, HALF)

        async def drip() -> None:
            while True:
                raw.writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")
        finally:
            dripping.cancel()


async def test_a_body_that_stops_ends_its_connection() -> None:
    async with served(body_idle_seconds=0.3) as port:
        raw = await Raw.open(port, b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")


BODY = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"


async def drip(raw: Raw, size: int = 1) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            raw.writer.write(b"x" * size)
            await raw.writer.drain()
            await asyncio.sleep(0.02)


async def test_a_body_that_drips_ends_its_connection() -> None:
    async with served(body_idle_seconds=0.3, bytes_per_second=1000) as port:
        raw = await Raw.open(port, BODY % b"/echo")
        dripping = asyncio.create_task(drip(raw))
        assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")
        await dripping


async def test_a_sender_that_is_too_slow_can_read_why_while_it_sends_on() -> None:
    async with served(body_idle_seconds=0.3, bytes_per_second=1000) as port:
        raw = await Raw.open(port, BODY % b"/echo")
        async with asyncio.timeout(5):
            dripping = asyncio.create_task(drip(raw))
            head = await raw.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408 ")
            assert await raw.reader.read() == b""
            raw.writer.write(b"x" * 10)
            await raw.writer.drain()  # nothing was reset yet
            await dripping  # until the server closes


async def test_a_body_that_comes_fast_enough_may_take_longer() -> None:
    async with served(body_idle_seconds=0.3, bytes_per_second=1000) as port:
        raw = await Raw.open(port, BODY % b"/echo")
        dripping = asyncio.create_task(drip(raw, 300))
        with pytest.raises(TimeoutError):
            await raw.rest(timeout=2.5)
        await asyncio.wait({dripping})


async def test_an_answer_that_has_begun_is_not_mixed_with_a_refusal() -> None:
    async with served(body_idle_seconds=0.3) as port:
        raw = await Raw.open(port, BODY % b"/begun")
        answer = await raw.rest()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"408" not in answer


async def test_a_body_that_the_server_does_not_take_yet_is_not_late() -> None:
    async with served(body_idle_seconds=0.3, bytes_per_second=1e9) as port:
        raw = await Raw.open(port, (BODY % b"/patient") + bytes(1_000_000))
        async with asyncio.timeout(10):
            assert b"200 OK" in await raw.reader.readline()
        raw.writer.close()


async def test_a_reader_that_asks_on_before_it_has_read_gets_its_answer_whole() -> None:
    async with served(header_seconds=0.3) as port:
        raw = await Raw.open(port, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.3)
        raw.writer.write(HALF)
        await asyncio.sleep(2.5)  # it takes its time, and the rest of its second request is long due
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await raw.reader.readexactly(LARGE) == bytes(LARGE)
        assert (await raw.rest()).startswith(b"HTTP/1.1 408 ")


async def test_complete_requests_and_sockets_may_be_slow() -> None:
    async with (
        served(header_seconds=0.2, body_idle_seconds=0.2) as port,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"http://127.0.0.1:{port}/socket") as ws,
    ):
        for _ in range(2):
            await asyncio.sleep(1.3)
            await ws.send_str("x")
            assert (await ws.receive(timeout=5)).data == "x"
            # A kept connection that waits for its next request is idle, not half-sent.
            async with http.get(f"http://127.0.0.1:{port}/livez") as answer:
                assert answer.status == 200


async def test_livez_answers_while_300_half_sent_requests_are_open() -> None:
    async with served(max_incomplete=100) as port, aiohttp.ClientSession() as http:
        raws = [await Raw.open(port, HALF) for _ in range(300)]
        async with asyncio.timeout(10):
            async with http.get(f"http://127.0.0.1:{port}/livez") as answer:
                assert answer.status == 200
        # The oldest were displaced, the newest are still admitted.
        assert (await raws[0].rest()).startswith(b"HTTP/1.1 503 ")
        raws[-1].writer.write(b"y\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"200 OK" in await raws[-1].reader.readline()
        for raw in raws:
            raw.writer.close()


async def test_connections_are_capped() -> None:
    async with served(max_connections=2) as port:
        kept = [await Raw.open(port, WHOLE) for _ in range(2)]
        for raw in kept:
            await raw.reader.readuntil(b"ok")
        assert (await (await Raw.open(port, WHOLE)).rest()).startswith(b"HTTP/1.1 503 ")
        kept[0].writer.close()
        await asyncio.sleep(0.1)
        kept.append(await Raw.open(port, WHOLE))
        assert b"200" in await kept[2].reader.readuntil(b"ok")
        for raw in kept:
            raw.writer.close()


_FEW_DESCRIPTORS = """
import asyncio, logging, resource, sys
from aiohttp import web
from meshhost.edge import listener, watched

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 120))

@web.middleware
async def knowing(request, handler):  # so that connections stay open
    watched.know_sender(request)
    raise web.HTTPNotFound

async def main():
    app = web.Application(middlewares=[knowing])
    watched.watch_requests(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await listener.GuardedSite(runner, "127.0.0.1", 0, log_seconds=60.0).start()
    print(runner.addresses[0][1], resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_flood_of_connections_is_refused_before_descriptors_run_out() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FEW_DESCRIPTORS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    port, limit = map(int, (await process.stdout.readline()).split())
    assert limit == 120  # raised from 48
    raws: list[Raw] = []
    try:
        for _ in range(3):
            raws += await asyncio.gather(*(Raw.open(port, WHOLE) for _ in range(50)))
            await asyncio.sleep(0.2)
        lines = await asyncio.gather(*(raw.reader.readline() for raw in raws), return_exceptions=True)
        answers = [line for line in lines if isinstance(line, bytes)]
        assert all(isinstance(line, bytes | ConnectionError) for line in lines)
        async with asyncio.timeout(10):  # refused connections have a moment to take their answer
            while psutil.Process(process.pid).num_fds() > 108:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert 60 < sum(b"404" in answer for answer in answers) < 100
        assert all(b"503" in answer or b"404" in answer or not answer for answer in answers)
        assert any(b"503" in answer for answer in answers)
        raws[0].writer.write(WHOLE)
        async with asyncio.timeout(5):
            while b"404" not in await raws[0].reader.readline():
                pass
        log = b""
        async with asyncio.timeout(5):  # the site logs once a second
            while b"too many file descriptors are in use" not in log:
                log += await process.stderr.readline()
    finally:
        for raw in raws:
            raw.writer.close()
        process.kill()
        _, rest = await process.communicate()
    log += rest
    assert len(log.splitlines()) < 40


async def test_a_connection_is_kept_only_after_a_request_of_somebody_known() -> None:
    unknown = b"GET /%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: wrong\r\n\r\n"
    async with served() as port:
        raw = await Raw.open(port, WHOLE)
        assert b"\r\nConnection: close" not in await raw.reader.readuntil(b"ok")
        raw.writer.write(unknown % b"livez" + WHOLE)
        assert (await raw.rest()).count(b"HTTP/1.1 ") == 1  # what was sent with it is not answered
        for path in (b"livez", b"nowhere", b"large"):
            answer = await (await Raw.open(port, unknown % path)).rest()
            assert b"\r\nConnection: close\r\n" in answer
        for path in (b"/busy", b"/busy/stream"):  # though it is known
            refused = await (await Raw.open(port, b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)).rest()
            assert refused.startswith(b"HTTP/1.1 429 ")
            assert refused.count(b"\r\nConnection: close\r\n") == 1


async def test_a_client_that_keeps_its_connections_comes_back_after_each_kind_of_refusal() -> None:
    async with served() as port, aiohttp.ClientSession() as http:
        for path, status in (("busy", 429), ("busy/stream", 429), ("livez", 200)) * 2:
            async with http.get(f"http://127.0.0.1:{port}/{path}") as answer:
                assert answer.status == status
                await answer.read()


async def test_an_answer_to_nobody_known_that_is_streamed_ends_its_connection_too() -> None:
    async with served() as port:
        head = b"POST /begun HTTP/1.1\r\nHost: localhost\r\nAuthorization: wrong\r\nContent-Length: 1\r\n\r\nx"
        assert b"begun" in await (await Raw.open(port, head)).rest()


async def test_the_cost_of_a_newcomer_is_without_what_others_do_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[float] = []
    monkeypatch.setattr(Pace, "learn", lambda _, seconds: learned.append(seconds))
    async with served() as port:
        raw = await Raw.open(port, b"GET /others HTTP/1.1\r\nHost: localhost\r\nAuthorization: wrong\r\n\r\n")
        assert b"200 OK" in await raw.rest()
    [seconds] = learned
    assert 0 < seconds < OTHERS_SECONDS


async def test_a_crowd_of_connections_is_accepted_one_at_a_time() -> None:
    async with served() as port:
        # Without awaiting: they are in the system's queue, which is long enough for all, when the loop runs next.
        crowd = [create_connection(("127.0.0.1", port)) for _ in range(200)]
        counts = [psutil.Process().num_fds()]
        async with asyncio.timeout(10):
            while counts[-1] < counts[0] + len(crowd):
                await asyncio.sleep(0)
                counts.append(psutil.Process().num_fds())
        assert max(after - now for now, after in itertools.pairwise(counts)) == 1
        for connection in crowd:
            connection.close()
        async with asyncio.timeout(10):
            while psutil.Process().num_fds() > counts[0] - len(crowd):  # noqa: ASYNC110 - the server closes its sides
                await asyncio.sleep(0.01)


def test_the_limit_of_descriptors_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        raised = descriptors.raise_limit()
        assert raised == min(hard, 1_048_576) or hard == resource.RLIM_INFINITY
        assert descriptors.raise_limit() == raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _own_address() -> str:
    """An address of this machine that is not a loopback one, as other machines have."""
    found = [
        each.address for addresses in psutil.net_if_addrs().values() for each in addresses if each.family == AF_INET
    ]
    others = [address for address in found if not is_loopback(address)]
    if not others:
        pytest.skip("this machine has no address but its own")
    return others[0]


async def test_one_address_does_not_take_the_places_of_all() -> None:
    own = _own_address()
    async with served("0.0.0.0", max_incomplete=6, max_incomplete_per_address=2) as port:
        near = [await Raw.open(port, HALF) for _ in range(3)]
        far = [await Raw.open(port, HALF, host=own) for _ in range(5)]
        for displaced in far[:3]:
            assert (await displaced.rest()).startswith(b"HTTP/1.1 503 ")
        # The newest two of that address, and everybody else, are still there.
        for raw in (*near, *far[3:]):
            raw.writer.write(b"y\r\n\r\n")
            async with asyncio.timeout(5):
                assert b"200 OK" in await raw.reader.readline()
            raw.writer.close()


async def test_the_runner_knows_the_site_and_closes_it() -> None:
    # What GuardedSite relies on in aiohttp's BaseSite: see its `start`.
    async with served() as port:
        assert port > 0
        (await Raw.open(port)).writer.close()
    with pytest.raises(ConnectionError):
        await Raw.open(port)


async def test_an_application_must_be_watched() -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    with pytest.raises(RuntimeError, match="watch_requests"):
        GuardedSite(runner, "127.0.0.1", 0)
    await runner.cleanup()


def test_the_edge_uses_no_private_name_of_aiohttp_but_those_for_subclasses() -> None:
    used = {
        node.attr
        for path in Path(listener.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert used == set()
    assert {"_runner", "_server"} <= set(web.BaseSite.__slots__)
