"""The attackers of a fuzz run, and what they find.

`Caller` sends calls over HTTP: good, repeated, stale, forged, broken and oversized ones. `RawCaller` opens sockets that speak
no HTTP, half of it, or very slowly. What is sent follows from the seed; the order in which it arrives does not. Each call knows
which answers it may get, and any other is a broken rule (`Findings.blame`).
"""

import asyncio
import gzip
import io
import json
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt

from bench.benched_host import BenchedHost
from meshhost.hosting.http.bodies import MAX_BODY_BYTES
from meshhost.identity.tokens import ParticipantToken
from meshhost.identity.webhooks import sign_webhook, webhook_body

SECRET = "fuzz-secret-of-more-than-32-bytes!!"
OTHER_SECRET = "other-secret-of-more-than-32-bytes!"
TENANTS, ROOMS, NAMES = 4, 4, 6
# Their agents end with the sockets by which they were called, and crash: no other tenant may be affected.
SOCKETS_TENANT = "sockets-"
SOCKETS_TENANTS = 200
PATH = "/idle"
DOCUMENTED = {200, 400, 401, 403, 404, 405, 408, 413, 429, 503}

Key = tuple[str, str, str]
KEYS = [
    (f"tenant-{tenant}", f"room-{room}", f"agent-{tenant}-{room}-{name}")
    for tenant in range(TENANTS)
    for room in range(ROOMS)
    for name in range(NAMES)
]


@dataclass(frozen=True)
class Call:
    """A request, the statuses that it may be answered with, and the agent that it starts when that is 200."""

    body: bytes
    headers: dict[str, str]
    may_get: frozenset[int]
    path: str = PATH
    method: str = "POST"
    key: Key | None = None


@dataclass
class Findings:
    """What happened so far; `problems` are the broken rules."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    started: set[Key] = field(default_factory=set)
    accepted: deque[Call] = field(default_factory=lambda: deque(maxlen=2_000))
    signatures: int = 0
    latencies: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def blame(self, problem: str) -> None:
        """Record a broken rule; only the first 20 are kept."""
        if len(self.problems) < 20:
            self.problems.append(problem)


class Caller:
    """Sends calls that follow from the seed, and checks their answers."""

    def __init__(self, host: BenchedHost, findings: Findings, name: str, seed: int) -> None:
        self._host = host
        self._found = findings
        self._random = random.Random(f"{seed} {name}")

    async def fire(self, until: float) -> None:
        """Send one call after the other until that time (`time.monotonic()`)."""
        kinds: list[Callable[[aiohttp.ClientSession], Awaitable[None]]] = [
            *[self.good] * 4,
            *[self.replayed] * 3,
            *[self.together] * 2,
            *[self.forged] * 4,
            *[self.garbage] * 4,
            *[self.refused] * 3,
            self.oversized,
            self.elsewhere,
        ]
        connector = aiohttp.TCPConnector(limit=8)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as http:
            while time.monotonic() < until:
                kind = self._random.choice(kinds)
                self._found.kinds[kind.__name__] += 1
                try:
                    await kind(http)
                except (aiohttp.ClientError, TimeoutError) as error:
                    # The host may close the connection of a body that it refuses to read, but not of a call.
                    if kind in (self.oversized, self.elsewhere, self.garbage):
                        self._found.statuses["no answer, connection closed"] += 1
                    else:
                        self._found.blame(f"{kind.__name__}: {type(error).__name__} {error}")

    # Kinds of calls

    async def good(self, http: aiohttp.ClientSession) -> None:
        call = self.make_call(self._random.choice(KEYS), in_header=self._random.random() < 0.2)
        begun = time.perf_counter()
        if await self.send(http, call) == 200:
            self._found.latencies.append((time.perf_counter() - begun) * 1000)

    async def replayed(self, http: aiohttp.ClientSession) -> None:
        if self._found.accepted:
            call = self._random.choice(self._found.accepted)
            await self.send(http, Call(call.body, call.headers, frozenset({401}), call.path))

    async def together(self, http: aiohttp.ClientSession) -> None:
        call, times = self.make_call(self._random.choice(KEYS)), self._random.randint(2, 5)
        call = Call(call.body, call.headers, call.may_get | {401}, key=call.key)
        statuses = await asyncio.gather(*[self.send(http, call) for _ in range(times)])
        if statuses.count(200) > 1:
            self._found.blame(f"one signature was taken {statuses.count(200)} times")

    async def forged(self, http: aiohttp.ClientSession) -> None:
        call = self.make_call(self._random.choice(KEYS))
        body, signature = call.body, call.headers["Meshhost-Signature"]
        place = self._random.randrange(len(body) - 1)
        altered = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        spot = self._random.randrange(len("Bearer "), len(signature) - 1)
        other = signature[:spot] + ("A" if signature[spot] != "A" else "B") + signature[spot + 1 :]
        claims = jwt.decode(signature.removeprefix("Bearer "), options={"verify_signature": False})
        body, header = self._random.choice(
            [
                (body, None),
                (body, sign_webhook(body, secret=OTHER_SECRET, now=time.time())),
                (
                    body,
                    sign_webhook(body, secret=SECRET, now=time.time() + self._random.choice([-1e9, -400, 400, 1e9])),
                ),
                (altered, signature),
                (body, other),
                (body, f"Bearer {jwt.encode(claims, None, 'none')}"),
                (body, f"Bearer {jwt.encode(claims | {'sha256': [1]}, SECRET)}"),
                (body, f"Bearer {jwt.encode(claims, SECRET + '.' * 40, 'HS512')}"),
                (body, f"Bearer {self._text(3000)}"),
                (body, f"Bearer {'.'.join(self._text(30) for _ in range(3))}"),
                (body, self._text(20)),
            ]
        )
        headers = {} if header is None else {self._random.choice(["Meshhost-Signature", "Meshagent-Signature"]): header}
        await self.send(http, Call(body, headers, frozenset({401})))

    async def garbage(self, http: aiohttp.ClientSession) -> None:
        """A correctly signed body that is not a call."""
        body = self._garbage()
        headers = self._signed(body) | self._random.choice(
            [
                {},
                {"Content-Type": self._text(20).strip() or "x"},
                {"Content-Type": "text/plain; charset=utf-32"},
                {"Content-Encoding": self._random.choice(["gzip", "deflate", "br", "zstd", "none"])},
                {"Meshagent-Webhook": self._text(200)},
                {"X-Long": "x" * self._random.randint(1, 9_000)},
                {"Cookie": "a=b; " * 900},
            ]
        )
        await self.send(http, Call(body, headers, frozenset({200, 400, 401, 413})), may_be_plain=True)

    async def refused(self, http: aiohttp.ClientSession) -> None:
        """A signed, well-formed call that must be refused."""
        key = self._random.choice(KEYS)
        data = self._data(key)
        changes: list[tuple[dict[str, object], set[int]]] = [
            (
                {
                    "room_url": self._random.choice(
                        ["ws://evil.example/rooms/x", "http://[::1", "ftp://x", self._text(40)]
                    )
                },
                {403},
            ),
            ({"room_name": "another-room"}, {403}),
            ({"token": self._text(80) or "x"}, {403}),
            ({"token": data["token"][: self._random.randrange(1, 30)]}, {403}),
            ({"token": None}, {400}),
            ({"arguments": self._random.choice([[1], "nonsense", 3])}, {400}),
            ({"room_name": "x" * 300}, {400}),
        ]
        change, statuses = self._random.choice(changes)
        body = webhook_body("room.call", data | change)
        await self.send(http, Call(body, self._signed(body), frozenset(statuses | {400})))

    async def oversized(self, http: aiohttp.ClientSession) -> None:
        size = MAX_BODY_BYTES + self._random.randint(1, 1_000_000)
        if self._random.random() < 0.5:
            body, headers = gzip.compress(b" " * size * 20, 1), {"Content-Encoding": "gzip"}
        else:
            body, headers = b"{" * size, {}
        await self.send(http, Call(body, headers, frozenset({413})))

    async def elsewhere(self, http: aiohttp.ClientSession) -> None:
        """A call to another path, or by another method."""
        call = self.make_call(self._random.choice(KEYS))
        path, method, statuses = self._random.choice(
            [
                ("/nowhere", "POST", {404}),
                (PATH + "/", "POST", {404}),
                ("//idle", "POST", {404}),
                ("/%00%ff/../idle", "POST", {404}),
                ("/livez", "POST", {404, 405}),
                (PATH, "DELETE", {405}),
                (PATH, "PATCH", {405}),
                (PATH, "BREW", {400, 405}),
                (PATH, "GET", {405}),
                ("/agents?limit=-1&after=" + "%ff" * 9, "GET", {400}),
                ("/agents/" + "x" * 200, "GET", {404}),
                ("/quarantine/release", "POST", {400}),
                ("/tenants/x/nothing", "POST", {404}),
            ]
        )
        body = b"" if method == "GET" else call.body
        await self.send(http, Call(body, {}, frozenset(statuses | {401}), path, method), may_be_plain=True)

    # How they are made

    def _data(self, key: Key) -> dict[str, Any]:
        tenant, room, name = key
        token = ParticipantToken(name=name, project_id=tenant)
        token.add_room_grant(room)
        token.add_role_grant("agent")
        text = token.to_jwt(token=OTHER_SECRET)
        return {"room_name": room, "room_url": f"{self._host.room.url}/rooms/{room}", "token": text, "arguments": {}}

    def _signed(self, body: bytes) -> dict[str, str]:
        return {"Meshhost-Signature": sign_webhook(body, secret=SECRET, now=time.time())}

    def make_call(self, key: Key, *, in_header: bool = False) -> Call:
        """Return a good call of this agent, in the body or, as room servers do for WebSockets, in a header."""
        body = webhook_body("room.call", self._data(key))
        headers = self._signed(body)
        if in_header:
            headers["Meshhost-Webhook"] = body.decode()
        # A host under load may refuse to start an agent.
        may_get = frozenset({200} if key in self._found.started else {200, 503})
        return Call(b"" if in_header else body, headers, may_get, key=key)

    def _text(self, length: int) -> str:
        return "".join(map(chr, self._random.choices(range(33, 127), k=self._random.randint(0, length))))

    def _garbage(self) -> bytes:
        chance = self._random
        depth, size = chance.choice([10, 900, 1_100, 50_000]), chance.randint(0, 3_000)
        return chance.choice(
            [
                chance.randbytes(size),
                self._text(size).encode(),
                b"[" * depth,
                b'{"event":"room.call","data":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}",
                b'{"event": "room.call", "data": {"room_name": ' + b"9" * chance.randint(1, 200_000) + b"}}",
                b'{"event": "\\ud800", "data": {}}',
                b'{"event": "room.call", "data": {"room_name": "\xff"}}',
                b'{"event": 1e999, "data": NaN}',
                json.dumps({"event": self._text(50), "data": {self._text(9): self._text(9)}}).encode(),
                b" " * (MAX_BODY_BYTES - 1),
            ]
        )

    async def send(self, http: aiohttp.ClientSession, call: Call, *, may_be_plain: bool = False) -> int:
        """Send a call and check its answer; returns the status. A 400 that `may_be_plain` need not be JSON."""
        self._found.signatures += 200 in call.may_get
        url, data = self._host.url + call.path, io.BytesIO(call.body)
        async with http.request(call.method, url, data=data, headers=call.headers) as response:
            text, status = await response.text(errors="replace"), response.status
        self._found.statuses[str(status)] += 1
        where = f"{call.method} {call.path}"
        if status not in DOCUMENTED or status not in call.may_get:
            self._found.blame(f"{where} was answered {status}, not {sorted(call.may_get)}: {text[:200]}")
        elif not _is_answer(status, text) and not (may_be_plain and status == 400):
            self._found.blame(f"{where} was answered {status} with no JSON that says why: {text[:100]}")
        if status == 200 and call.key is not None:
            self._found.started.add(call.key)
            self._found.accepted.append(call)
        return status


class RawCaller:
    """Opens connections and sends bytes that are not, or not quite, HTTP."""

    def __init__(self, host: BenchedHost, findings: Findings, name: str, seed: int) -> None:
        self._port = int(host.url.rpartition(":")[2])
        self._found = findings
        self._random = random.Random(f"{seed} {name}")
        self._calls = Caller(host, findings, f"{name} calls", seed)
        self._sockets = 0
        self._name = name

    async def fire(self, until: float) -> None:
        """Open one connection after the other until that time."""
        while time.monotonic() < until:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._found.kinds["raw"] += 1
            try:
                await self._misuse(writer, until)
                async with asyncio.timeout(self._random.choice([0.001, 0.02, 0.2])):
                    self._note(await reader.readline())
                    await reader.read(65_536)
            except (TimeoutError, OSError, ValueError):
                self._found.statuses["raw: nothing, or hung up"] += 1
            finally:
                if self._random.random() < 0.5:
                    writer.transport.abort()
                writer.close()

    async def _misuse(self, writer: asyncio.StreamWriter, until: float) -> None:
        data = self._bytes()
        if self._random.random() < 0.05:
            for number in range(min(len(data), 40)):
                writer.write(data[number : number + 1])
                await writer.drain()
                await asyncio.sleep(0.02)
                if time.monotonic() > until:
                    break
        else:
            cut = self._random.choice([len(data), len(data), self._random.randint(0, len(data))])
            writer.write(data[:cut])
        await writer.drain()

    def _note(self, line: bytes) -> None:
        if not line:
            self._found.statuses["raw: nothing, or hung up"] += 1
            return
        parts = line.split(b" ")
        if not line.startswith(b"HTTP/1.") or not parts[1].isdigit() or int(parts[1]) not in DOCUMENTED | {101, 100}:
            self._found.blame(f"raw bytes were answered {line[:80]!r}")
        self._found.statuses[f"raw: {parts[1].decode()}"] += 1

    def _bytes(self) -> bytes:
        chance = self._random
        head = b"POST /idle HTTP/1.1\r\nHost: localhost\r\n"
        body = chance.randbytes(chance.randint(0, 400))
        upgrade = b"GET /idle HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        return chance.choice(
            [
                body,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + body,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + body,
                head + b"Content-Length: 400\r\n\r\n" + body,
                head + b"Content-Length: " + body[:9] + b"\r\n\r\n",
                head + b"Content-Length: 99999999999999999999\r\n\r\n" + body,
                head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + body,
                head + b"Transfer-Encoding: chunked\r\n\r\n" + body,
                head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % chance.getrandbits(80) + body,
                head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n;;;\r\n",
                head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
                head + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
                head + b"X: " + b"y" * chance.randint(1, 100_000) + b"\r\n\r\n",
                head + b"X: y\r\n" * chance.randint(1, 3_000) + b"\r\n",
                head + b"Meshhost-Webhook: " + body.replace(b"\n", b"") + b"\r\n\r\n",
                (head + b"Content-Length: 2\r\n\r\n{}") * chance.randint(2, 60),
                upgrade + b"\r\n",
                upgrade + b"Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: " + body[:20] + b"\r\n\r\n",
                b"GET /idle HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + body,
                self._socket_call() + body,
                self._socket_call() + body,
            ]
        )

    def _socket_call(self) -> bytes:
        """Return a call by WebSocket upgrade, as a room server makes it; what follows it is not WebSocket."""
        self._sockets += 1
        tenant = f"{SOCKETS_TENANT}{self._random.randrange(SOCKETS_TENANTS)}"
        data = self._calls._data((tenant, "room", f"{self._name}-{self._sockets}"))
        body = webhook_body("room.call", data)
        signature = self._calls._signed(body)["Meshhost-Signature"]
        self._found.signatures += 1
        lines = [
            "GET /idle HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Meshhost-Signature: {signature}",
            f"Meshhost-Webhook: {body.decode()}",
        ]  # fmt: skip
        return "\r\n".join([*lines, "", ""]).encode()


def _is_answer(status: int, text: str) -> bool:
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    return isinstance(answer, dict) and (status == 200 or isinstance(answer.get("error"), str))
