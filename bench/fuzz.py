"""Calls under fire: `python -m bench fuzz [seconds] [--seed N]`. Ends with 1 when the host did what it must not.

A host of its own process, with a secret, gets good, repeated, stale, forged, broken and oversized calls over several
connections at once, and beside them sockets that speak no HTTP, half of it, or very slowly. What is sent follows from the seed;
in which order it arrives does not.
"""

import asyncio
import gzip
import io
import json
import random
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import psutil
from rich.console import Console
from rich.table import Table

from bench.hosting import BenchedHost, benched_host
from meshhost.hosting.http.routes import MAX_BODY_BYTES
from meshhost.identity.tokens import ParticipantToken
from meshhost.identity.webhooks import sign_webhook, webhook_body

SECONDS = 60.0
SEED = 20_261_123
CALLERS = 8
RAW_CALLERS = 4
SECRET = "fuzz-secret-of-more-than-32-bytes!!"
OTHER_SECRET = "other-secret-of-more-than-32-bytes!"
TENANTS, ROOMS, NAMES = 4, 4, 6
# Their agents end with the sockets that they were called by, and crash: no other tenant must feel it.
SOCKETS_TENANT = "sockets-"
SOCKETS_TENANTS = 200
PATH = "/idle"
DOCUMENTED = {200, 400, 401, 403, 404, 405, 408, 413, 429, 503}
MAY_GROW_MIB = 24.0
# The host remembers each signature that it took for ten minutes.
MIB_PER_SIGNATURE = 250 / 2**20
SETTLE_SECONDS = 30.0

Key = tuple[str, str, str]
KEYS = [
    (f"tenant-{tenant}", f"room-{room}", f"agent-{tenant}-{room}-{name}")
    for tenant in range(TENANTS)
    for room in range(ROOMS)
    for name in range(NAMES)
]


@dataclass(frozen=True)
class Call:
    """A request, the answers that it may get, and the agent that it starts with 200."""

    body: bytes
    headers: dict[str, str]
    may_get: frozenset[int]
    path: str = PATH
    method: str = "POST"
    key: Key | None = None


@dataclass
class Findings:
    """What happened. `problems` are the broken invariants."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    started: set[Key] = field(default_factory=set)
    accepted: deque[Call] = field(default_factory=lambda: deque(maxlen=2_000))
    signatures: int = 0
    latencies: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def blame(self, problem: str) -> None:
        """Note a broken invariant; the first ones are enough."""
        if len(self.problems) < 20:
            self.problems.append(problem)


class Caller:
    """Makes calls that the seed decides, and checks their answers."""

    def __init__(self, host: BenchedHost, findings: Findings, name: str, seed: int) -> None:
        self._host = host
        self._found = findings
        self._random = random.Random(f"{seed} {name}")

    async def fire(self, until: float) -> None:
        """Send one call after the other until then (`time.monotonic()`)."""
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
                    # The host may hang up on what it refuses to read, but not on a call.
                    if kind in (self.oversized, self.elsewhere, self.garbage):
                        self._found.statuses["no answer, connection closed"] += 1
                    else:
                        self._found.blame(f"{kind.__name__}: {type(error).__name__} {error}")

    # Kinds of calls

    async def good(self, http: aiohttp.ClientSession) -> None:
        call = self._call(self._random.choice(KEYS), in_header=self._random.random() < 0.2)
        begun = time.perf_counter()
        if await self._send(http, call) == 200:
            self._found.latencies.append((time.perf_counter() - begun) * 1000)

    async def replayed(self, http: aiohttp.ClientSession) -> None:
        if self._found.accepted:
            call = self._random.choice(self._found.accepted)
            await self._send(http, Call(call.body, call.headers, frozenset({401}), call.path))

    async def together(self, http: aiohttp.ClientSession) -> None:
        call, times = self._call(self._random.choice(KEYS)), self._random.randint(2, 5)
        call = Call(call.body, call.headers, call.may_get | {401}, key=call.key)
        statuses = await asyncio.gather(*[self._send(http, call) for _ in range(times)])
        if statuses.count(200) > 1:
            self._found.blame(f"one signature was taken {statuses.count(200)} times")

    async def forged(self, http: aiohttp.ClientSession) -> None:
        call = self._call(self._random.choice(KEYS))
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
        await self._send(http, Call(body, headers, frozenset({401})))

    async def garbage(self, http: aiohttp.ClientSession) -> None:
        """Signed as it ought to be, but no call."""
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
        await self._send(http, Call(body, headers, frozenset({200, 400, 401, 413})), may_be_plain=True)

    async def refused(self, http: aiohttp.ClientSession) -> None:
        """Signed, well-formed, and not to be followed."""
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
        await self._send(http, Call(body, self._signed(body), frozenset(statuses | {400})))

    async def oversized(self, http: aiohttp.ClientSession) -> None:
        size = MAX_BODY_BYTES + self._random.randint(1, 1_000_000)
        if self._random.random() < 0.5:
            body, headers = gzip.compress(b" " * size * 20, 1), {"Content-Encoding": "gzip"}
        else:
            body, headers = b"{" * size, {}
        await self._send(http, Call(body, headers, frozenset({413})))

    async def elsewhere(self, http: aiohttp.ClientSession) -> None:
        """Other paths and methods."""
        call = self._call(self._random.choice(KEYS))
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
        await self._send(http, Call(body, {}, frozenset(statuses | {401}), path, method), may_be_plain=True)

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

    def _call(self, key: Key, *, in_header: bool = False) -> Call:
        body = webhook_body("room.call", self._data(key))
        headers = self._signed(body)
        if in_header:
            headers["Meshhost-Webhook"] = body.decode()
        # A host under load takes no new agent.
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

    async def _send(self, http: aiohttp.ClientSession, call: Call, *, may_be_plain: bool = False) -> int:
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
    """Opens sockets and misuses them."""

    def __init__(self, host: BenchedHost, findings: Findings, name: str, seed: int) -> None:
        self._port = int(host.url.rpartition(":")[2])
        self._found = findings
        self._random = random.Random(f"{seed} {name}")
        self._calls = Caller(host, findings, f"{name} calls", seed)
        self._sockets = 0
        self._name = name

    async def fire(self, until: float) -> None:
        """Open one after the other until then."""
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
        """An upgrade as a room server makes it: its agent lives as long as the socket, which is followed by nonsense."""
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


@dataclass(frozen=True)
class Vitals:
    """A host's process as of now: MiB, open files, threads, children."""

    mib: float
    files: int
    threads: int
    children: int


def _vitals(host: BenchedHost) -> Vitals:
    process = psutil.Process(host.process.pid)
    children = len(process.children(recursive=True))
    return Vitals(host.resident / 2**20, process.num_fds(), process.num_threads(), children)


async def _agents(host: BenchedHost) -> Counter[Key]:
    """Who lives there, but for those that came by a socket; one of a key is right."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
        http.get(f"{host.url}/agents?limit=10000", timeout=aiohttp.ClientTimeout(30)) as answer,
    ):
        agents = (await answer.json())["agents"]
    return Counter(
        (one["tenant"], one["room"], one["identity"])
        for one in agents
        if one["state"] not in ("stopped", "failed") and not one["tenant"].startswith(SOCKETS_TENANT)
    )


async def _watch(host: BenchedHost, found: Findings, until: float) -> None:
    """At no time has a key two agents, and the host always answers."""
    while time.monotonic() < until:
        try:
            for key, number in (await _agents(host)).items():
                if number > 1:
                    found.blame(f"{number} agents of {key}")
        except (aiohttp.ClientError, TimeoutError) as error:
            found.blame(f"the host does not answer: {type(error).__name__}")
        await asyncio.sleep(1.0)


async def _start_all(host: BenchedHost, found: Findings, seed: int) -> None:
    """So that the memory before is that of a host with all agents that are to be."""
    caller = Caller(host, found, "first", seed)
    async with aiohttp.ClientSession() as http:
        for key in KEYS:
            while await caller._send(http, caller._call(key)) != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
            await host.room.wait_started(key[2])


async def _settled(host: BenchedHost, before: Vitals) -> Vitals:
    """Once what was left of the connections is closed, or when that takes too long."""
    end = time.monotonic() + SETTLE_SECONDS
    while (vitals := _vitals(host)).files > before.files and time.monotonic() < end:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.2)
    return vitals


async def _answers(host: BenchedHost, found: Findings, seed: int) -> bool:
    caller = Caller(host, found, "last", seed)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as http:
        return await caller._send(http, caller._call(KEYS[0])) == 200


async def _under_fire(host: BenchedHost, found: Findings, seconds: float, seed: int) -> None:
    until = time.monotonic() + seconds
    callers: list[Caller | RawCaller] = [
        *(Caller(host, found, f"caller {number}", seed) for number in range(CALLERS)),
        *(RawCaller(host, found, f"raw-{number}", seed) for number in range(RAW_CALLERS)),
    ]
    async with asyncio.TaskGroup() as tasks:
        for one in callers:
            tasks.create_task(one.fire(until))
        tasks.create_task(_watch(host, found, until))


def _judge(found: Findings, before: Vitals, after: Vitals, agents: Counter[Key]) -> None:
    if agents != Counter(found.started):
        twice = {key for key, number in agents.items() if number > 1}
        found.blame(f"agents: {len(found.started - set(agents))} gone, {len(twice)} twice, {len(agents)} in all")
    grown = after.mib - before.mib
    if grown > (most := MAY_GROW_MIB + found.signatures * MIB_PER_SIGNATURE):
        found.blame(f"memory grew by {grown:.0f} MiB, more than {most:.0f}")
    if after.files > before.files:
        found.blame(f"{after.files - before.files} files stayed open")
    if after.threads > before.threads or after.children > before.children:
        found.blame("threads or processes were left behind")


def _show(found: Findings, before: Vitals, after: Vitals, agents: Counter[Key], *, answers: bool, title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("", "found", "expected"):
        table.add_column(column, justify="left" if not column else "right")
    for status, number in sorted(found.statuses.items()):
        table.add_row(f"answered {status}", f"{number:,}", "")
    table.add_row("calls in all", f"{sum(found.statuses.values()):,}", "")
    table.add_section()
    table.add_row("agents alive", f"{agents.total():,}", f"{len(found.started):,}")
    grown = f"< {before.mib + MAY_GROW_MIB + found.signatures * MIB_PER_SIGNATURE:.1f}"
    table.add_row("memory before, MiB", f"{before.mib:.1f}", "")
    table.add_row("memory after, MiB", f"{after.mib:.1f}", grown)
    table.add_row("open files before", str(before.files), "")
    table.add_row("open files after", str(after.files), f"{before.files}")
    table.add_row("threads after", str(after.threads), f"<= {before.threads}")
    if len(found.latencies) > 1:
        p99 = statistics.quantiles(found.latencies, n=100, method="inclusive")[98]
        table.add_row("good call meanwhile, p99 ms", f"{p99:.0f}", "")
    table.add_row("host answers", "yes" if answers else "no", "yes")
    console = Console(width=110)
    console.print(table)
    for problem in found.problems:
        console.print(f"BROKEN: {problem}", soft_wrap=True, markup=False, highlight=False)


async def main(seconds: float = SECONDS, *, seed: int = SEED) -> None:
    """Fire for so many seconds and print what became of it. Raises SystemExit(1) when an invariant was broken."""
    print(f"seed {seed}, {seconds:g} s, {CALLERS} callers, {RAW_CALLERS} sockets at a time", file=sys.stderr)
    found = Findings()
    async with benched_host("meshhost", sys.executable, environment={"MESHHOST_WEBHOOK_SECRET": SECRET}) as host:
        await _start_all(host, found, seed)
        # What aiohttp and the JSON parsers allocate once is no leak.
        await _under_fire(host, found, min(5.0, seconds / 4), seed + 1)
        await asyncio.sleep(3.0)
        before = _vitals(host)
        found.signatures = 0
        await _under_fire(host, found, seconds, seed)
        answers = await _answers(host, found, seed)
        after, agents = await _settled(host, before), await _agents(host)
        _judge(found, before, after, agents)
    _show(found, before, after, agents, answers=answers, title=f"Calls under fire for {seconds:g} s, seed {seed}")
    if found.problems or not answers:
        raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main())
