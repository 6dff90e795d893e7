"""Malformed requests at every edge: refused, and they leave no error and no traceback in the log, which senders could fill.

Every route of both servers gets every kind of nonsense, with a credential that opens it: what is refused for its credential
alone is test_every_route.py's. The routes come from its tables, so a new one cannot be forgotten. Calls of a host are tried
further in test_calls_under_fire.py.
"""

import asyncio
import io
import itertools
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from meshhost.app.ports import reserved_port
from meshhost.hosting.service_host import ServiceHost
from meshhost.testing.agents import QuietAgent
from meshhost.testing.server import RunningServer, running_server
from tests.integration.test_every_route import HOST, OPERATOR, ROOM_SERVER

OPERATOR_KEY = "operator-key-of-more-than-thirty-two-characters"
ADMIN_KEY = "admin-key"
PARAMETERS = sorted({name for _, path in [*ROOM_SERVER, *HOST] for name in re.findall(r"{(\w+)}", path)})
# Replaces a parameter of the path, encoded as it is sent.
SEGMENTS = ["%00", "%ff", "%2e%2e", "%2F", "a%0d%0aX:y", "%ed%a0%80", "x" * 3000, "%F0%9F%92%A9", "'\"<>", "%25", "-1"]
QUERIES = [
    "limit=x&offset=-1",
    "limit=99999999999999999999999999&after=%ff",
    "for=nan&for=1",
    "token=%00",
    "token=" + "x" * 2000,
    "since=9e999&until=-1&by=nothing",
    "tenant=%ff&level=7&all=%zz",
    "code=%00&state=%ff&redirect_uri=http%3A%2F%2F%5B",
    "&&==&=",
]
BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b'{"name": "\\ud800"}',
    b'{"name": 1e999, "limits": NaN}',
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"name": null, "description": [], "role": {}, "expires_at": "x"}',
    b'{"name": "' + b"x" * 100_000 + b'"}',
    b"9" * 10_000,
    b"grant_type=%ff&code=%00",
]
TYPES = [
    "application/json",
    "application/json; charset=nonsense",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
]
TYPES += ["application/x-www-form-urlencoded", "\u00e9", "application/json; charset=utf-16"]
HEAD = b"GET /livez HTTP/1.1\r\nHost: h\r\n"
RAW = [
    b"\x00",
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /%zz HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET //[ HTTP/1.1\r\nHost: h\r\n\r\n",
    b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody",
    HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    HEAD + b"X: y\r\n" * 20_000 + b"\r\n",
    HEAD + b"No colon\r\n\r\n",
    HEAD + b"A\x00: b\r\n\r\n",
    b"GET /rooms/room HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 99\r\n\r\n",
    b"GET /rooms/room HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    b"POST /oauth/token HTTP/1.1\r\nHost: \xff\xfe\r\nContent-Length: 300\r\n\r\n{",
]


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Callable[[str], None]:
    """`quiet(what)` fails when anything since the last time left an error or a traceback in the log."""
    caplog.set_level(logging.INFO)

    def check(what: str) -> None:
        loud = [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
        assert not loud, f"{what}: {[record.getMessage() for record in loud]}"
        caplog.clear()

    return check


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path, operator_key=OPERATOR_KEY) as server:
        yield server


@pytest.fixture
async def host() -> AsyncIterator[ServiceHost]:
    with reserved_port() as health_port:
        host = ServiceHost(
            port=0,
            webhook_secret="secret",
            admin_key=ADMIN_KEY,
            allowed_room_urls=["http://localhost"],
            health_port=health_port,
        )
        host.add_path("/agent", cls=QuietAgent)
        await host.start()
        yield host
        await host.stop()


def nonsense(path: str, good: Mapping[str, str]) -> Iterator[tuple[str, bytes, str]]:
    """Path with its query, body and content type of each malformed request for a route."""
    usual = path.format_map(good)
    for name in good:
        if f"{{{name}}}" in path:
            for segment in SEGMENTS:
                yield path.format_map({**good, name: segment}), b"{}", TYPES[0]
    for query in QUERIES:
        yield f"{usual}?{query}", b"{}", TYPES[0]
    for body, kind in [*((body, TYPES[0]) for body in BODIES), *itertools.product(BODIES[:3], TYPES[1:])]:
        yield usual, body, kind


async def send(
    http: aiohttp.ClientSession, method: str, url: str, path: str, bearer: str, body: bytes, kind: str
) -> int:
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": kind}
    quoted = quote(path, safe="/?&=%:'\"<>-.;,{}[]!~*()@$+")
    try:
        async with http.request(
            method, URL(url + quoted, encoded=True), headers=headers, data=body, allow_redirects=False
        ) as answer:
            await answer.read()
            return answer.status
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        return 0  # it was refused without an answer


async def test_no_malformed_request_is_an_error_of_the_room_server(
    server: RunningServer, http: aiohttp.ClientSession, quiet: Callable[[str], None]
) -> None:
    tenant = server.key.project_id
    good = dict.fromkeys(PARAMETERS, "none") | {
        "project": tenant,
        "tenant": tenant,
    }
    good |= {"room": "room", "name": "room", "room_name": "gone"}
    for (method, path), who in ROOM_SERVER.items():
        is_gateway_or_room = path.startswith("/rooms/")
        bearer = server.token("room") if is_gateway_or_room else OPERATOR_KEY if who == OPERATOR else server.api_key
        if (method, path) == ("DELETE", "/tenants/{tenant}"):
            continue  # it would be done, and leave nothing to try
        for target, body, kind in nonsense(path, good):
            if method == "POST" and path.endswith("/suspend") and target == path.format_map(good):
                continue
            what = f"{method} {target[:200]} {body[:40]!r} {kind}"
            status = await send(http, "POST" if method == "*" else method, server.url, target, bearer, body, kind)
            assert status < 500 or status == 501, what
            quiet(what)


async def test_what_aiohttp_refuses_is_json_too(server: RunningServer, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{server.url}/hooks/x") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert await answer.json() == {"error": "405: Method Not Allowed"}
    headers = {"Authorization": f"Bearer {server.api_key}"}
    url = f"{server.url}/rooms/room/queues/q/settings"
    async with http.patch(url, data=io.BytesIO(b" " * (1024**2 + 1)), headers=headers) as answer:
        assert answer.status == 413
        assert await answer.json() == {"error": "the body is too large: at most 1048576 bytes are taken"}


async def test_no_malformed_request_is_an_error_of_the_service_host(
    host: ServiceHost, http: aiohttp.ClientSession, quiet: Callable[[str], None]
) -> None:
    url = f"http://127.0.0.1:{host.port}"
    for method, path in HOST:
        if path == "/drain":
            continue
        for target, body, kind in nonsense(path, {"id": "none", "tenant": "t", "path": "agent"}):
            what = f"{method} {target[:200]} {body[:40]!r} {kind}"
            assert await send(http, method, url, target, ADMIN_KEY, body, kind) < 500, what
            quiet(what)


async def test_no_route_of_either_server_inflates_a_body(
    server: RunningServer, host: ServiceHost, http: aiohttp.ClientSession
) -> None:
    good = dict.fromkeys(PARAMETERS, "none")
    good |= {"project": "p", "tenant": "t"}
    for url, routes in ((server.url, [*ROOM_SERVER]), (f"http://127.0.0.1:{host.port}", HOST)):
        for method, path in routes:
            for coding in ("gzip", "identity, br", "deflate"):
                # Not what the header says: whoever tried to inflate it would answer with 400.
                asking = http.request(
                    "POST" if method == "*" else method,
                    url + path.format_map(good),
                    headers={"Content-Encoding": coding, "Content-Type": "application/json"},
                    data=b"{}",
                    skip_auto_headers=["Accept-Encoding"],
                )
                async with asking as answer:
                    assert answer.status == 415, (method, path, coding)
                    if method != "HEAD":
                        assert "compressed bodies are not taken" in (await answer.json())["error"]


async def raw(port: int, data: bytes) -> bytes:
    """What is answered to these bytes, after which the sender hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    except OSError:  # it was cut off
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("data", RAW, ids=range(len(RAW)))
async def test_bytes_that_are_no_request_are_no_error(
    server: RunningServer,
    host: ServiceHost,
    quiet: Callable[[str], None],
    capfd: pytest.CaptureFixture[str],
    data: bytes,
) -> None:
    health_port = host.options.health_port
    for port in (server.server.port, host.port, health_port):
        assert b"HTTP/1.1 5" not in (await raw(port, data)).replace(b"HTTP/1.1 505", b"")
        quiet(repr(data[:60]))
    assert "Traceback" not in capfd.readouterr().err  # what the thread of the health port would write


FRAMES: list[tuple[str, bytes | str]] = [
    ("bytes", b""),
    ("bytes", b"\x00"),
    ("bytes", b"\xff" * 40),
    ("bytes", b"\x00" * 16),
    ("bytes", bytes(range(256)) * 64),
    ("text", "text"),
    ("text", ""),
]


@pytest.mark.parametrize(("kind", "data"), FRAMES, ids=range(len(FRAMES)))
async def test_frames_that_are_no_packets_are_no_error(
    server: RunningServer,
    http: aiohttp.ClientSession,
    quiet: Callable[[str], None],
    kind: str,
    data: bytes | str,
) -> None:
    url = f"{server.url}/rooms/room?token={server.token('room')}"
    async with http.ws_connect(url) as socket:
        for _ in range(3):
            if socket.closed:
                break
            await (socket.send_bytes(data) if isinstance(data, bytes) else socket.send_str(data))
    async with server.client() as other:  # the room is as well as before
        assert await other.queues.list() == []
    quiet(repr(data[:40]))
