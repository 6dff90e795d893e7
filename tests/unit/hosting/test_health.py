"""What a host says of its health, without a host: verdicts, the server of its own threads, what a start waits for."""

import asyncio
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from doubles.ports import free_port

from meshhost.errors import CallRefusedError, MeshhostError, SettingsError
from meshhost.hosting import startup as startup_module
from meshhost.hosting.observe import health as health_module
from meshhost.hosting.observe.health import Health, HealthAnswer, HealthServer
from meshhost.hosting.observe.watchdog import Block, LoopWatchdog
from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.processes.pool import ProcessPool
from meshhost.hosting.startup import StartUp, error_line
from meshhost.identity.tenant import AgentKey, RoomKey, TenantId

OPTIONS = ProcessOptions(size=1, program=Program("none.py", is_module=False))


class Dog(LoopWatchdog):
    """A watchdog that says what the test wants."""

    def __init__(self, held: float = 0.0, path: str | None = None) -> None:
        super().__init__(threshold=1.0)
        self.held = held
        key = AgentKey(RoomKey(TenantId("acme"), "secret room"), path or "", "agent")
        self.block = None if path is None else Block(0.0, held, "a stack", "a task", key)

    def held_seconds(self) -> float:
        return self.held


def health_of(dog: LoopWatchdog) -> Health:
    return Health(dog, live_seconds=30, is_path={"/ours"}.__contains__)


def test_a_loop_that_turns_or_is_held_for_a_short_time_lives() -> None:
    assert health_of(Dog()).live() == HealthAnswer(200, {"ok": True, "lag_seconds": 0.0})
    held = health_of(Dog(29.0, "/ours")).live()
    block = {"seconds": 29.0, "agent": "/ours"}
    assert held == HealthAnswer(200, {"ok": True, "lag_seconds": 29.0, "block": block})


def test_a_loop_that_is_held_for_too_long_is_dead_and_only_the_path_is_told() -> None:
    dead = {"ok": False, "reason": "event loop blocked", "seconds": 31.0}
    assert health_of(Dog(31.0, "/ours")).live() == HealthAnswer(503, {**dead, "agent": "/ours"})
    assert health_of(Dog(31.0, "/of-nobody")).live() == HealthAnswer(503, {**dead, "agent": None})
    assert health_of(Dog(31.0)).live().body["agent"] is None


def test_the_last_block_is_told_by_its_path() -> None:
    dog = Dog()
    dog.last_block = Block(time.monotonic() - 5.0, 2.0, "a stack", "a task", Dog(path="/ours").block.agent)
    block = health_of(dog).live().body["last_block"]
    assert (block["path"], block["seconds"]) == ("/ours", 2.0)
    assert block["seconds_ago"] >= 3.0
    dog.last_block = Block(0.0, 2.0, "a stack", "a task")
    assert health_of(dog).live().body["last_block"]["path"] is None


def test_a_loop_that_is_held_is_not_ready_whatever_it_said_before() -> None:
    dog = Dog()
    health = health_of(dog)
    assert (health.last_ready().status, health.last_ready().body["reasons"]) == (503, ["starting"])
    health.remember(HealthAnswer(200, {"ok": True}))
    assert health.last_ready() == HealthAnswer(200, {"ok": True})
    dog.held = 2.0
    blocked = {"ok": False, "reason": "event loop blocked", "reasons": ["event loop blocked"]}
    assert health.last_ready() == HealthAnswer(503, blocked)
    assert "503" not in repr(health)


# The server


@pytest.fixture
def request_seconds() -> float:
    return health_module.REQUEST_SECONDS


@pytest.fixture
def server(request_seconds: float) -> Iterator[tuple[HealthServer, int]]:
    port = free_port()
    running = HealthServer(health_of(Dog()), host="127.0.0.1", port=port, request_seconds=request_seconds)
    running.start()
    yield running, port
    running.stop()
    running.stop()
    assert not [thread.name for thread in threading.enumerate() if "meshhost health" in thread.name]
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


def get(port: int, path: str, method: str = "GET") -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), dict(response.getheaders())
    finally:
        connection.close()


def test_questions_are_answered_by_threads(server: tuple[HealthServer, int]) -> None:
    running, port = server
    running.start()
    assert "running=True" in repr(running)
    status, body, headers = get(port, "/livez?verbose=1")
    assert (status, body["ok"], headers["Server"], headers["Content-Type"]) == (
        200,
        True,
        "meshhost",
        "application/json",
    )
    assert get(port, "/readyz")[:2] == (503, {"ok": False, "reason": "starting", "reasons": ["starting"]})
    assert get(port, "/metrics")[:2] == (404, {"error": "expected /livez or /readyz"})
    assert get(port, "/livez", "POST")[:2] == (501, {"error": "501"})


def test_those_who_ask_nothing_keep_nobody_from_an_answer(server: tuple[HealthServer, int]) -> None:
    silent = [socket.create_connection(("127.0.0.1", server[1])) for _ in range(health_module.MAX_REQUESTS * 2)]
    assert get(server[1], "/livez")[0] == 200
    busy = [thread for thread in threading.enumerate() if thread.name == "meshhost health request"]
    assert len(busy) <= health_module.MAX_REQUESTS
    for one in silent:
        one.close()


def test_no_more_is_answered_at_once_than_may_be(
    server: tuple[HealthServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, port = server
    go, inside = threading.Event(), threading.Semaphore(0)

    def slow() -> HealthAnswer:
        inside.release()
        go.wait(10)
        return HealthAnswer(200, {})

    monkeypatch.setattr(running.health, "live", slow)
    connections = []
    for _ in range(health_module.MAX_REQUESTS):
        connections.append(http.client.HTTPConnection("127.0.0.1", port, timeout=10))
        connections[-1].request("GET", "/livez")
        assert inside.acquire(timeout=10)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get(port, "/readyz")
    go.set()
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("request_seconds", [0.2])
def test_who_takes_for_ever_is_hung_up_on(server: tuple[HealthServer, int]) -> None:
    with socket.create_connection(("127.0.0.1", server[1]), timeout=10) as slow:
        slow.sendall(b"GET /livez HT")
        assert slow.recv(1) == b""


def test_a_stop_ends_who_still_asks(server: tuple[HealthServer, int]) -> None:
    running, port = server
    with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
        slow.sendall(b"GET")
        assert get(port, "/livez")[0] == 200  # so the first connection was taken as well
        running.stop()
        assert slow.recv(1) == b""


def test_a_request_that_breaks_is_no_news(
    server: tuple[HealthServer, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger=health_module.__name__)

    def broken() -> HealthAnswer:
        raise OSError("no")

    monkeypatch.setattr(server[0].health, "live", broken)
    with pytest.raises(http.client.RemoteDisconnected):
        get(server[1], "/livez")
    assert [record.getMessage() for record in caplog.records] == ["health request failed"]
    assert get(server[1], "/readyz")[0] == 503


def test_a_port_in_use_is_told(server: tuple[HealthServer, int]) -> None:
    other = HealthServer(health_of(Dog()), host="127.0.0.1", port=server[1])
    with pytest.raises(SettingsError, match=r"for health: .* choose another MESHHOST_HEALTH_PORT"):
        other.start()
    other.stop()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_ipv6_is_listened_on() -> None:
    try:
        port = free_port("::1")
    except OSError:
        pytest.skip("no IPv6 address here")
    running = HealthServer(health_of(Dog()), host="::1", port=port)
    running.start()
    connection = http.client.HTTPConnection("::1", port, timeout=10)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()
    running.stop()


# What a start waits for


def test_a_host_without_warm_processes_waits_for_nothing() -> None:
    startup = StartUp(ProcessPool(OPTIONS, paths=list), seconds=60)
    assert startup.missing == ()
    startup.check()
    cold = ProcessOptions(size=0, program=OPTIONS.program)
    startup = StartUp(ProcessPool(cold, paths=list), seconds=60)
    startup.need_pool()
    assert startup.missing == ()


async def test_what_is_missing_is_told_after_the_deadline_and_then_less_and_less_often(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ProcessPool(OPTIONS, paths=list)
    startup = StartUp(pool, seconds=0.02)
    startup.need_pool()
    assert (startup.missing, "starting" in repr(startup)) == (("process pool starting",), True)
    pool.boot_error = ImportError("no module named better")
    with pytest.raises(CallRefusedError) as refused:
        startup.check()
    assert str(refused.value) == "this host is not ready: process pool: ImportError: no module named better"
    assert (refused.value.status, refused.value.retry_after) == (503, 5.0)

    told = asyncio.Event()

    class Handler(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            if len(caplog.records) == 3:
                told.set()

    handler = Handler()
    logger = logging.getLogger(startup_module.__name__)
    logger.addHandler(handler)
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = group.create_task(startup.wait())
            await told.wait()
            pool._has_booted.set()
            await waiting
    finally:
        logger.removeHandler(handler)
    assert startup.missing == ()
    startup.check()
    waited = [record.waited_seconds for record in caplog.records]
    assert {record.getMessage() for record in caplog.records} == {"host is not ready yet"}
    assert caplog.records[0].missing == ["process pool: ImportError: no module named better"]
    assert waited == sorted(waited)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ImportError("no module named better"), "ImportError: no module named better"),
        (MeshhostError("not ready within 2 s:\nFile x, line 1"), "not ready within 2 s"),
        (ValueError("\n  first\nsecond"), "ValueError: first"),
        (KeyError(), "KeyError"),
        (MeshhostError(), "MeshhostError"),
        (OSError("cannot reach postgres://me:word@db/x"), "OSError: cannot reach postgres://…@db/x"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 300 + "…"),
    ],
)
def test_an_error_is_told_in_a_line_without_its_stack(error: Exception, line: str) -> None:
    assert error_line(error) == line


def test_what_takes_long_to_fail_is_tried_seldom() -> None:
    pool = ProcessPool(OPTIONS, paths=list)
    delays = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            delays.append(record.__dict__["retry_in"])

    handler = Handler()
    logger = logging.getLogger("meshhost.hosting.processes.pool")
    logger.addHandler(handler)
    for took in (0.1, 0.1, 60.0, 60.0, 60.0):
        pool._boot_failed(ImportError("no"), took)
    logger.removeHandler(handler)
    assert delays == [0.5, 1.0, 240.0, 240.0, 240.0]
    assert isinstance(pool.boot_error, ImportError)
