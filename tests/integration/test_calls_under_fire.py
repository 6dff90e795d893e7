"""Whatever is sent to a host over HTTP: no second agent, no crash, always an answer that the reference names.

Sequences of good, repeated, reordered, forged, oversized and broken calls go over real sockets to a host with a secret. The
room server is a stand-in and the agents do nothing, so that a sequence takes milliseconds.
"""

import asyncio
import io
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import jwt
import pytest
from doubles.stand_in import StandInServer
from hypothesis import HealthCheck, currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from meshhost.hosting.http.bodies import MAX_BODY_BYTES
from meshhost.hosting.observe.load import LoadLimits
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.identity.webhooks import MAX_AGE_SECONDS, SIGNATURE_HEADERS, sign_webhook, webhook_body
from meshhost.supervision.state import State
from meshhost.testing.agents import QuietAgent

pytestmark = pytest.mark.slow

SECRET = "webhook-secret-of-at-least-32-bytes!"
OTHER_SECRET = "another-secret-of-at-least-32-bytes!"
TOKEN_SECRET = "token-secret-of-at-least-32-bytes!!!"
# What docs/reference/service-host.md says that a host answers.
DOCUMENTED = {200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 503}
NEVER_LOADED = LoadLimits(lag=1e9, cpu=1e9, memory=1e9, per_core=1e9)
WAIT_SECONDS = 20.0

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Call:
    """One request as it is sent."""

    body: bytes
    headers: Mapping[str, str]
    path: str = "/agent"
    method: str = "POST"


@dataclass(frozen=True)
class Answer:
    """What the host answered; `error` is None where it has none."""

    status: int
    error: Any
    spawn_id: str | None


@dataclass
class Fire:
    """A host, what was sent to it, and the keys of the calls that it accepted."""

    host: ServiceHost
    room: StandInServer
    http: aiohttp.ClientSession
    sent: list[Call] = field(default_factory=list)
    accepted: set[Key] = field(default_factory=set)

    def data(self, key: Key) -> dict[str, Any]:
        tenant, room, _, name = key
        token = ParticipantToken(name=name, project_id=tenant)
        token.grants = [ParticipantGrant(name="room", scope=room), ParticipantGrant(name="role", scope="agent")]
        return {"room_name": room, "room_url": self.room.room_url(room), "token": token.to_jwt(token=TOKEN_SECRET)}

    def call(self, key: Key, *, in_header: bool = False, **signature: Any) -> Call:
        body = webhook_body("room.call", self.data(key))
        headers = {"Meshhost-Signature": signed(body, **signature)}
        if in_header:
            return Call(b"", headers | {"Meshhost-Webhook": body.decode()}, path=key[2])
        return Call(body, headers, path=key[2])

    async def send(self, call: Call) -> Answer:
        """Send it; the answer is one that is documented, with JSON."""
        url = f"http://127.0.0.1:{self.host.port}{call.path}"
        async with (
            asyncio.timeout(WAIT_SECONDS),
            self.http.request(call.method, url, data=io.BytesIO(call.body), headers=call.headers) as response,
        ):
            text = await response.text()
        assert response.status in DOCUMENTED, text
        assert response.content_type == "application/json", (response.status, text)
        answer = json.loads(text)
        assert (response.status == 200) == (answer.get("ok") is True)
        assert response.status == 200 or (isinstance(answer["error"], str) and SECRET not in text)
        if response.status in (429, 503):
            assert int(response.headers["Retry-After"]) > 0
        if currently_in_test_context():
            event(f"answered {response.status}")
        return Answer(response.status, answer.get("error"), answer.get("spawn_id"))

    async def send_raw(self, request: bytes, *, waits: float = WAIT_SECONDS) -> bytes:
        """Send bytes; returns all that comes back until the host hangs up, for so long at most. Then hang up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.host.port)
        answer = b""
        try:
            writer.write(request)
            async with asyncio.timeout(waits):
                while chunk := await reader.read(65_536):
                    answer += chunk
        except (TimeoutError, ConnectionError):  # it waits for more, or does not want to read all of it
            pass
        finally:
            writer.close()
        return answer

    def living(self) -> Counter[Any]:
        keys = (agent.key for agent in self.host.agents)
        return Counter((key.tenant, key.room.name, key.path, key.identity) for key in keys)


def signed(body: bytes, *, secret: str = SECRET, age: float = 0.0) -> str:
    return sign_webhook(body, secret=secret, now=time.time() - age)


@asynccontextmanager
async def under_fire(**tuned: float) -> AsyncIterator[Fire]:
    """A host that takes signed calls at /agent and /other."""
    agent = type("Agent", (QuietAgent,), {})
    async with StandInServer() as room, aiohttp.ClientSession(auto_decompress=True) as http:
        host = ServiceHost(
            host="127.0.0.1", port=0, webhook_secret=SECRET, allowed_room_urls=[room.url], drain_seconds=2.0
        )
        # A short linger, so that what remains of refused connections is gone when a test looks for it.
        host.tune(**{"load_limits": NEVER_LOADED, "linger_seconds": 0.2} | tuned)
        for path in ("/agent", "/other"):
            host.add_path(path, cls=agent)
        await host.start()
        try:
            yield Fire(host, room, http)
        finally:
            await host.stop()


# What is sent: each strategy makes functions of a Fire that send something and check the answer


KEYS = st.tuples(
    st.sampled_from(["acme", "globex"]),
    st.sampled_from(["room", "röom"]),
    st.sampled_from(["/agent", "/other"]),
    st.sampled_from(["poet", "clerk"]),
)


@dataclass(frozen=True)
class Good:
    """A call as a room server makes it, in the body or the header, `times` at once, each with a signature of its own."""

    key: Key
    in_header: bool
    times: int

    async def act(self, fire: Fire) -> None:
        calls = [fire.call(self.key, in_header=self.in_header and self.key[1].isascii()) for _ in range(self.times)]
        answers = await asyncio.gather(*map(fire.send, calls))
        fire.sent += calls
        fire.accepted.add(self.key)
        assert [answer.status for answer in answers] == [200] * self.times, answers
        assert len({answer.spawn_id for answer in answers}) == 1


@dataclass(frozen=True)
class Replayed:
    """A call that was accepted, byte for byte again, `times` at once: its agent answers, as it did, and no other starts."""

    number: int
    times: int

    async def act(self, fire: Fire) -> None:
        if fire.sent:
            again = fire.sent[self.number % len(fire.sent)]
            answers = await asyncio.gather(*[fire.send(again) for _ in range(self.times)])
            # 401: it is stale meanwhile.
            assert {answer.status for answer in answers} in ({200}, {401})
            assert len({answer.spawn_id for answer in answers}) == 1


@dataclass(frozen=True)
class SentTwiceAtOnce:
    """One call with one signature, several times at once: one of them is taken, and answers for all."""

    key: Key
    times: int

    async def act(self, fire: Fire) -> None:
        call = fire.call(self.key)
        answers = await asyncio.gather(*[fire.send(call) for _ in range(self.times)])
        fire.accepted.add(self.key)
        assert [answer.status for answer in answers] == [200] * self.times
        assert len({answer.spawn_id for answer in answers}) == 1


@dataclass(frozen=True)
class OutOfOrder:
    """Made so many seconds ago (or ahead): taken while it is fresh, whatever came before."""

    key: Key
    age: float

    async def act(self, fire: Fire) -> None:
        call = fire.call(self.key, age=self.age)
        answer = await fire.send(call)
        if answer.status == 200:
            fire.sent.append(call)
            fire.accepted.add(self.key)
        if abs(self.age) > MAX_AGE_SECONDS + 5:
            assert answer.status == 401
        elif abs(self.age) < MAX_AGE_SECONDS - 5:
            assert answer.status == 200


@dataclass(frozen=True)
class Forged:
    """Not signed by who knows the secret, in one of several ways."""

    key: Key
    how: str
    place: int

    async def act(self, fire: Fire) -> None:
        good = fire.call(self.key)
        assert (await fire.send(self.forge(good))).status == 401

    def forge(self, good: Call) -> Call:
        signature = good.headers["Meshhost-Signature"]
        match self.how:
            case "no signature":
                return Call(good.body, {}, good.path)
            case "another secret":
                return Call(good.body, {"Meshhost-Signature": signed(good.body, secret=OTHER_SECRET)}, good.path)
            case "another body":
                place = self.place % (len(good.body) - 1)
                changed = good.body[:place] + bytes([good.body[place] ^ 1]) + good.body[place + 1 :]
                return Call(changed, good.headers, good.path)
            case "another header":
                # The last character of a signature has bits that do not count.
                place = len("Bearer ") + self.place % (len(signature) - len("Bearer ") - 1)
                other = "A" if signature[place] != "A" else "B"
                changed_header = signature[:place] + other + signature[place + 1 :]
                return Call(good.body, {"Meshhost-Signature": changed_header}, good.path)
            case "an event besides the body":
                return Call(good.body, {**good.headers, "Meshhost-Webhook": '{"event": "room.call"}'}, good.path)
            case "two signatures":
                headers = {"Meshhost-Signature": "Bearer x.y.z", "Meshagent-Signature": signature}
                return Call(good.body, headers, good.path)
            case "no algorithm":
                claims = jwt.decode(signature.removeprefix("Bearer "), options={"verify_signature": False})
                return Call(good.body, {"Meshhost-Signature": f"Bearer {jwt.encode(claims, None, 'none')}"}, good.path)
            case _:
                return Call(good.body, {"Meshhost-Signature": self.how}, good.path)


HOWS = [
    "no signature", "another secret", "another body", "another header", "an event besides the body", "two signatures",
    "no algorithm", "Bearer", "Bearer ", "Basic eDp5", "Bearer a.b.c", "Bearer ..", "Bearer " + "A" * 6000,
]  # fmt: skip


@dataclass(frozen=True)
class Signed:
    """Any bytes, signed as they ought to be: 400 or, when it happens to be another event, ignored."""

    body: bytes
    headers: Mapping[str, str]
    path: str

    async def act(self, fire: Fire) -> None:
        headers = {"Meshhost-Signature": signed(self.body), **self.headers}
        answer = await fire.send(Call(self.body, headers, self.path))
        assert answer.spawn_id is None
        assert answer.status in {200, 400, 401, 403, 404, 413, 415}


@dataclass(frozen=True)
class Raw:
    """Bytes on the socket that are no request, or not all of one."""

    request: bytes
    waits: float

    async def act(self, fire: Fire) -> None:
        answer = await fire.send_raw(self.request, waits=self.waits)
        for line in answer.split(b"\r\n"):
            if line.startswith(b"HTTP/1."):
                assert int(line.split(b" ")[1]) in DOCUMENTED


class Shown(bytes):
    """Bytes that are shown in part when a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes {self[:60]!r}>"


def _deep(depth: int, opening: str) -> bytes:
    return (opening * depth).encode()


def _with(data: Any) -> bytes:
    return json.dumps({"event": "room.call", "data": data}).encode()


MEMBERS = st.sampled_from(["event", "data", "room_name", "room_url", "token", "arguments"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(MEMBERS, VALUES).map(_with),
    st.builds(_deep, st.sampled_from([10, 1_000, 30_000]), st.sampled_from(["[", '{"a":', '{"event":"e","data":{"a":'])),
    st.integers(0, 200_000).map(lambda depth: b'{"event":"x","data":{"a":' + b"[" * depth + b"]" * depth + b"}}"),
    st.integers(MAX_BODY_BYTES - 1, MAX_BODY_BYTES + 70_000).map(lambda size: b" " * size),
    st.sampled_from([b"\xff\xfe{}", b'{"event": "\xc3\x28", "data": {}}', b'{"event": "\\ud800", "data": {}}', b"1" * 100_000]),
    st.integers(1, 400_000).map(lambda digits: b'{"event": "room.call", "data": {"room_name": ' + b"9" * digits + b"}}"),
)  # fmt: skip
HEADERS = st.sampled_from(
    [
        {},
        {"Content-Type": "text/plain; charset=nonsense"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "\u00e9"},
        {"Expect": "100-continue"},
        {"Content-Encoding": "identity"},
        {"Content-Encoding": "nonsense"},
        {"Meshagent-Webhook": "{"},
        {"Cookie": "a=b; " * 100},
        {"X-Forwarded-For": "127.0.0.1", "Host": "\u00e9"},
        {"X-Long": "x" * 7_000},
    ]
)
PATHS = st.sampled_from(
    ["/agent", "/other", "/nowhere", "/agent/", "//agent", "/%61gent", "/ag%00ent", "/%ff", "/?a=%ff"]
)
_HEAD = b"POST /agent HTTP/1.1\r\nHost: h\r\n"
RAW = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=100).map(lambda body: _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body),
    st.integers(0, 400).map(lambda size: (_HEAD + b"Content-Length: 300\r\n\r\n" + b"{" * 300)[:size]),
    st.sampled_from([b"gzip", b"deflate", b"br", b"zstd"]).map(
        lambda coding: _HEAD + b"Content-Encoding: " + coding + b"\r\nContent-Length: 4\r\n\r\nbody"
    ),
    st.sampled_from(
        [
            _HEAD + b"Content-Length: -1\r\n\r\n",
            _HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
            _HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            _HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            _HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
            _HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
            _HEAD + b"X: y\r\n" * 20_000 + b"\r\n",
            _HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            b"GET /agent HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 99\r\n\r\n",
            b"GET /agent HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST http://[::1 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
            b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ]
    ),
)  # fmt: skip
CALLS = st.one_of(
    st.builds(Good, KEYS, st.booleans(), st.integers(1, 6)),
    st.builds(Replayed, st.integers(0, 50), st.integers(1, 3)),
    st.builds(SentTwiceAtOnce, KEYS, st.integers(2, 6)),
    st.builds(OutOfOrder, KEYS, st.floats(-2 * MAX_AGE_SECONDS, 2 * MAX_AGE_SECONDS)),
    st.builds(Forged, KEYS, st.sampled_from(HOWS), st.integers(0, 10_000)),
    st.builds(Signed, BODIES.map(Shown), HEADERS, PATHS),
    st.builds(Raw, RAW.map(Shown), st.sampled_from([0.0, 0.02])),
)


# The laws


async def check_laws(fire: Fire) -> None:
    """One live agent for each key of an accepted call and none besides; a good call still starts one."""
    fire.accepted.add(("acme", "room", "/agent", "last"))
    last = await fire.send(fire.call(("acme", "room", "/agent", "last")))
    assert last.status == 200
    assert fire.living() == Counter(fire.accepted)
    assert 'status="5' not in fire.host.parts.metrics.render().decode()
    async with asyncio.timeout(WAIT_SECONDS):
        for spawn in fire.host.agents:
            await spawn.wait_state(State.RUNNING)


def assert_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that anybody sends is an error of the host: its log would be for the sender to fill."""
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    caplog.clear()
    assert not errors


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls=st.lists(CALLS, min_size=1, max_size=25))
async def test_no_sequence_of_calls_starts_a_second_agent_or_ends_the_host(
    calls: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with under_fire() as fire:
        for call in calls:
            await call.act(fire)
            assert fire.living() == Counter(fire.accepted)
        await check_laws(fire)
    assert_quiet(caplog)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls=st.lists(CALLS, min_size=2, max_size=12))
async def test_nor_do_calls_that_come_all_at_once(calls: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    async with under_fire() as fire:
        async with asyncio.TaskGroup() as tasks:
            for call in calls:
                tasks.create_task(call.act(fire))
        await check_laws(fire)
    assert_quiet(caplog)


# What the sequences found, one by one


@pytest.fixture
async def fire() -> AsyncIterator[Fire]:
    async with under_fire() as found:
        yield found


def shown(fire: Fire) -> str:
    return fire.host.parts.metrics.render().decode()


def signature() -> dict[str, str]:
    """A good signature, of whatever body."""
    return {SIGNATURE_HEADERS[0]: sign_webhook(b"", secret=SECRET, now=time.time())}


def signature_head() -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in signature().items()).encode()


@pytest.mark.parametrize("path", ["/agent", "/quarantine/release"])
@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 3\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n9\r\na"],
)
async def test_a_body_that_breaks_off_is_no_error_of_the_host(
    fire: Fire, path: str, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = signature_head() if path == "/agent" else b""  # else nothing of the body is read
    await fire.send_raw(b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s%s" % (path.encode(), head, rest), waits=0.05)
    await check_laws(fire)
    assert_quiet(caplog)
    assert path != "/agent" or 'meshhost_calls_total{path="/agent",status="400"} 1.0' in shown(fire)


async def test_a_body_that_does_not_end_is_refused_with_408() -> None:
    async with under_fire(body_seconds=0.05) as fire:
        reader, writer = await asyncio.open_connection("127.0.0.1", fire.host.port)
        async with asyncio.timeout(WAIT_SECONDS):
            head = b"POST /agent HTTP/1.1\r\nHost: h\r\nContent-Length: 300\r\nConnection: close\r\n"
            writer.write(head + signature_head() + b"\r\n{")
            status = await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert status.startswith(b"HTTP/1.1 408")
        assert 'meshhost_calls_total{path="/agent",status="408"} 1.0' in shown(fire)


async def test_what_is_no_http_is_told_so_and_leaves_no_traceback(fire: Fire, caplog: pytest.LogCaptureFixture) -> None:
    answer = await fire.send_raw(b"POST /agent HTTP/1.1\r\nContent-Length: -1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 400")
    assert_quiet(caplog)


async def test_an_error_of_the_host_itself_is_still_logged(
    fire: Fire, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fire.host.parts.http, "readiness", None)
    async with fire.http.get(f"http://127.0.0.1:{fire.host.port}/readyz") as response:
        assert response.status == 500
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "meshhost.hosting.http.routes"


async def test_a_replay_starts_nobody_also_when_the_agent_is_gone(fire: Fire) -> None:
    call = fire.call(("acme", "room", "/agent", "poet"))
    assert (await fire.send(call)).status == 200
    [spawn] = fire.host.agents
    spawn.abort()
    await asyncio.wait_for(spawn.wait_state(State.STOPPED), WAIT_SECONDS)
    assert (await fire.send(call)).status == 409
    assert not fire.host.agents


async def test_a_connection_whose_body_was_not_read_is_not_used_again(fire: Fire) -> None:
    url, data = f"http://127.0.0.1:{fire.host.port}/agent", b" " * 2_000_000
    for headers, status in (({}, 401), (signature(), 413)):
        async with fire.http.post(url, data=io.BytesIO(data), headers=headers) as response:
            assert (response.status, response.headers["Connection"]) == (status, "close")
