"""Requests of the command line over the standard library's client."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from meshhost.cli.connect import ServerAccess, get_json
from meshhost.cli.rest import Download, ask
from meshhost.errors import ConnectionLostError, RoomError


@pytest.fixture
async def raw_server() -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
    """Starts a server that answers everything with these bytes and closes; returns its URL."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_a_request_carries_the_key_the_query_and_the_body() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response(
            [request.headers["Authorization"], request.query_string, request.method, await request.json()]
        )

    app = web.Application()
    app.router.add_put("/a", echo)
    async with TestServer(app) as server:
        url = str(server.make_url("/a"))
        status, answer = await asyncio.to_thread(
            ask, "PUT", url, bearer="k", query={"q": "a b"}, body={"ä": 1}, timeout=10
        )

    assert (status, answer) == (200, b'["Bearer k", "q=a b", "PUT", {"\\u00e4": 1}]')


async def test_a_key_and_an_address_of_any_letters_arrive() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.json_response([request.headers["Authorization"], request.path])

    app = web.Application()
    app.router.add_get("/{path:.*}", echo)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        _, answer = await asyncio.to_thread(ask, "GET", f"{url}größe/a b/100%25", bearer="schlüssel-€", timeout=10)

    assert json.loads(answer) == ["Bearer schlüssel-€", "/größe/a b/100%"]


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_what_is_no_name_of_a_host_cannot_be_reached(host: str) -> None:
    with pytest.raises(ConnectionLostError, match=r"cannot reach the room server at .* \(no name of a host\)"):
        get_json(ServerAccess(f"http://{host}", "p", "key"), "/x")


async def test_a_key_is_not_taken_to_where_a_redirect_leads(
    raw_server: Callable[[bytes], Awaitable[str]],
) -> None:
    url = await raw_server(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(RoomError, match=r"sends clients elsewhere \(302\): set MESHHOST_API_URL"):
        await asyncio.to_thread(get_json, ServerAccess(url, "p", "key"), "/x")


async def test_what_does_not_speak_http_is_no_server(raw_server: Callable[[bytes], Awaitable[str]]) -> None:
    url = await raw_server(b"SSH-2.0-OpenSSH\r\n")

    with pytest.raises(ConnectionError, match="no answer of HTTP"):
        await asyncio.to_thread(ask, "GET", url, timeout=10)
    download = Download(url, timeout=10)
    with pytest.raises(ConnectionError, match="no answer of HTTP"):
        await download.start()
    download.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ],
    ids=["by its length", "by its chunks"],
)
async def test_a_download_that_is_cut_off_is_an_error(
    answer: bytes, raw_server: Callable[[bytes], Awaitable[str]]
) -> None:
    download = Download(f"{await raw_server(answer)}/file?sig=1", timeout=10)
    status, _ = await download.start()
    assert status == 200

    with pytest.raises(OSError, match=r"cut off|no answer"):
        [chunk async for chunk in download.chunks(3)]
    download.close()


@pytest.mark.parametrize("keeps_open", [True, False])
@pytest.mark.parametrize("has_begun", [True, False])
async def test_closing_a_download_ends_the_read_that_waits(keeps_open: bool, has_begun: bool) -> None:
    stop = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if not keeps_open:
            response.force_close()
        await response.prepare(request)
        await response.write(b"begin")
        await stop.wait()
        return response

    app = web.Application()
    app.router.add_get("/f", slow)
    async with TestServer(app) as server:
        download = Download(str(server.make_url("/f")), timeout=60)
        await download.start()
        chunks = download.chunks(100)
        assert await anext(chunks) == b"begin"
        read = asyncio.ensure_future(anext(chunks, b""))
        if has_begun:
            await asyncio.sleep(0.05)
        download.close()  # of a read that has not begun: its thread comes to its turn after this
        async with asyncio.timeout(10):
            [ended] = await asyncio.gather(read, return_exceptions=True)
        assert ended == b"" or isinstance(ended, OSError)
        stop.set()
