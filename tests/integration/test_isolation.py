"""Agents that misbehave, in a task and in a process of their own: what the host tells, and what is left afterwards."""

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import obstore
import psutil
import pytest
from doubles.ports import free_port
from obstore.store import MemoryStore
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from meshhost.errors import NotFoundError, SettingsError
from meshhost.hosting.calls.admission import AllowedRooms, admit
from meshhost.hosting.processes import interpreter as interpreter_module
from meshhost.hosting.processes import template as process_template_module
from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.service_host import ServiceHost
from meshhost.identity.webhooks import webhook_body
from meshhost.room.client import RoomClient
from meshhost.room.services.messaging import RoomMessage
from meshhost.supervision.agent import SupervisedAgent
from meshhost.supervision.policy import RestartPolicy
from meshhost.supervision.state import State
from meshhost.testing.server import RunningServer, running_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="isolation 'process' needs Linux")]

PROGRAMS = Path(__file__).parents[1] / "isolation_programs"
NEVER_AGAIN = RestartPolicy(kind="temporary")


def _misbehaving() -> Any:
    spec = importlib.util.spec_from_file_location("misbehaving", PROGRAMS / "misbehaving.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


misbehaving = _misbehaving()


async def soon(awaitable: Awaitable[Any], seconds: float = 20.0) -> Any:
    """What is awaited here comes soon, or the test fails."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for what no event tells of: the state of other processes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.02)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        # It reads on connections of their own, which it opens at its first look: before the test counts open files.
        await running.server.engines.queues.totals()
        yield running


@pytest.fixture
async def short_lived(tmp_path: Path) -> AsyncIterator[tuple[RunningServer, AsyncExitStack]]:
    """A room server that ends when the test closes the stack."""
    async with AsyncExitStack() as life:
        yield await life.enter_async_context(running_server(tmp_path / "short-lived")), life


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


MARK = "MESHHOST_TEST_LEAVES_NOTHING"


def marked_processes(mark: str) -> list[str]:
    """Every process that began in this test, however it came to be: also the orphans of agents, whom init adopted."""
    found = []
    for process in psutil.process_iter():
        try:
            is_marked = process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if is_marked and process.pid != os.getpid():
            found.append(repr(process))
    return found


def open_sockets() -> list[str]:
    """The sockets of this process: listening, connected, and pairs."""
    return [f"{one.laddr} {one.raddr} {one.status}" for one in psutil.Process().net_connections("all")]


def other_tasks() -> set[str]:
    return {repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()}


@pytest.fixture(autouse=True, scope="module")
def runtime_of_obstore() -> None:
    """Its runtime opens three files at the first use in a process, for good: before the first test counts open files."""
    obstore.put(MemoryStore(), "x", b"")


@pytest.fixture(autouse=True)
async def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """After every test, when host and room server are gone: no process, socket, file or task of them. Gives the test's mark."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    files, sockets, tasks = open_files(), len(open_sockets()), len(other_tasks())
    yield mark
    await until(lambda: not marked_processes(mark), "no process is left, of agents neither")
    await until(lambda: len(open_sockets()) <= sockets, f"no socket is left open: {sockets} before")
    await until(lambda: len(other_tasks()) <= tasks, f"no task is left: {tasks} before")
    await until(lambda: open_files() <= files, f"no file is left open: {files} before")


@dataclass
class Hosted:
    """A host with a path for each class of the programs, and how it is called."""

    host: ServiceHost
    server: RunningServer
    http: aiohttp.ClientSession
    isolation: str

    async def post(self, path: str, *, identity: str = "agent", room: str = "room", **data: Any) -> tuple[int, Any]:
        call = {
            "room_name": room,
            "room_url": self.server.server.room_url(room),
            "token": self.server.token(room, name=identity, role="agent"),
            "arguments": {},
        }
        body = webhook_body("room.call", call | data)
        async with self.http.post(f"http://127.0.0.1:{self.host.port}/{path}", data=body) as response:
            return response.status, await response.json()

    async def called(self, cls: type, **data: Any) -> SupervisedAgent:
        status, answer = await self.post(cls.__name__, **data)
        assert status == 200, answer
        spawn = self.host.parts.supervisor.find(answer["spawn_id"])
        assert spawn is not None
        return spawn

    async def called_when_it_has_time(self, cls: type, **data: Any) -> SupervisedAgent:
        """As `called`, of a host whose loop was just blocked: it refuses calls until it has caught up."""
        async with asyncio.timeout(20):
            while (await self.post(cls.__name__, **data))[0] == 503:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.1)
        return await self.called(cls, **data)

    async def text(self, path: str) -> str:
        async with self.http.get(f"http://127.0.0.1:{self.host.port}{path}") as response:
            return await response.text()

    async def asked(self, identity: str) -> dict[str, Any]:
        """What a Normal agent in the room tells of itself."""
        async with self.server.client(name=f"asks-{identity}") as room:
            return await ask(room, identity)


async def ask(room: RoomClient, identity: str) -> dict[str, Any]:
    answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def take(message: RoomMessage) -> None:
        if message.type == "!" and not answered.done():
            answered.set_result(message.message)

    room.messaging.on("message", take)
    await room.messaging.enable()

    def found() -> Any:
        return next((one for one in room.messaging.remote_participants if one.get_attribute("name") == identity), None)

    await until(lambda: found() is not None, f"{identity} is in the room")
    await room.messaging.send_message(to=found(), type="?", message={})
    return await soon(answered)


Serve = Callable[..., Awaitable[Hosted]]


@pytest.fixture
def start() -> str:
    """How processes come to be, where a test is not about both ways. Not `auto`: that would hide a template that fails."""
    return "fork"


both_ways = pytest.mark.parametrize("start", ["fork", "boot"])


@pytest.fixture
async def serve(server: RunningServer, http: aiohttp.ClientSession, start: str) -> AsyncIterator[Serve]:
    """`serve("task" | "process")` starts a host. Whatever its agents did, nothing of them is left at the end."""
    files, threads = open_files(), threading.active_count()
    # Fixtures that live longer may have processes: those of a database, say, when this worker took a test of another file.
    processes_before = set(psutil.Process().children())
    async with AsyncExitStack() as stack:

        async def make(
            isolation: str,
            *,
            program: str = "main.py",
            classes: list[type] | None = None,
            restart: RestartPolicy = NEVER_AGAIN,
            start_timeout: float = 30.0,
            drain: float = 3.0,
            allowed: Sequence[str] = (),
            options: dict[str, Any] | None = None,
            cleanup_seconds: float = 4.0,
            **host_options: Any,
        ) -> Hosted:
            file = Program(str(PROGRAMS / program), is_module=False)
            quick = {"look_seconds": 0.1, "abort_seconds": 0.5}
            processes = {"size": 0, "program": file, "start": start, **quick} | (options or {})
            host = ServiceHost(
                port=0,
                webhook_secret="",
                allowed_room_urls=[server.url, *allowed],
                drain_seconds=drain,
                process_pool=ProcessOptions(**processes),
                **host_options,
            )
            host.tune(cleanup_seconds=cleanup_seconds)
            for cls in classes or misbehaving.ALL:
                host.add_path(
                    f"/{cls.__name__}", cls=cls, isolation=isolation, restart=restart, start_timeout=start_timeout
                )
            await host.start()
            stack.push_async_callback(host.stop)
            return Hosted(host, server, http, isolation)

        yield make
    await until(lambda: set(psutil.Process().children()) <= processes_before, "no process is left")
    await until(lambda: open_files() <= files, f"no file is left open: {files} before, {open_files()} now")
    await until(lambda: threading.active_count() <= threads, "no thread is left")


both = pytest.mark.parametrize("isolation", ["task", "process"])


async def neighbour_works(hosted: Hosted) -> None:
    answer = await hosted.asked("neighbour")
    assert (answer["pid"] == os.getpid()) == (hosted.isolation == "task")


async def with_neighbour(hosted: Hosted) -> SupervisedAgent:
    spawn = await hosted.called(misbehaving.Normal, identity="neighbour")
    await soon(spawn.wait_state(State.RUNNING))
    return spawn


# The same in both isolations


@both_ways
@both
async def test_a_normal_agent_knows_its_call_takes_a_new_token_and_leaves(
    serve: Serve, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hosted = await serve(isolation, drain=10.0)
    spawn = await hosted.called(misbehaving.Normal, identity="poet", arguments={"topic": "ai"})
    await soon(spawn.wait_state(State.RUNNING))
    first = await hosted.asked("poet")
    token = hosted.server.token("room", name="poet", role="agent")
    assert await hosted.called(misbehaving.Normal, identity="poet", token=token) is spawn
    async with hosted.server.client(name="asker") as room:
        answer = await ask(room, "poet")
        while answer["token"] != token:
            answer = await ask(room, "poet")
    report = await hosted.host.stop()

    assert first["arguments"] == {"topic": "ai"}
    assert first["call"]
    assert (first["pid"] == os.getpid()) == (isolation == "task")
    assert (spawn.state, report.finished, report.aborted, report.stuck) == (State.STOPPED, ("poet in room",), (), ())
    records = {record.getMessage(): record for record in caplog.records if record.name == "misbehaving"}
    started = vars(records["normal agent started"])
    assert "normal agent stopped" in records
    assert started["topic"] == "ai"
    assert started["process"] == first["pid"]
    if isolation == "process":  # in a task a filter of the program's own handler adds them
        assert (started["room"], started["identity"], started["path"]) == ("room", "poet", "/Normal")
        assert (started["tenant"], started["spawn_id"]) == (hosted.server.key.project_id, spawn.id)


@both
@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("CrashesInConstructor", "ValueError", "broken by construction"),
        ("CrashesInStart", "LookupError", "nothing to start with"),
        ("CrashesLater", "ZeroDivisionError", "one by none"),
    ],
)
async def test_a_crash_is_told_with_its_error_and_traceback(
    serve: Serve, isolation: str, name: str, error: str, text: str
) -> None:
    hosted = await serve(isolation)
    await with_neighbour(hosted)
    spawn = await hosted.called(getattr(misbehaving, name))
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert (spawn.last_error.type, spawn.last_error.text) == (error, text)
    assert "misbehaving.py" in spawn.last_error.traceback
    await neighbour_works(hosted)


@both_ways
async def test_secrets_of_the_operator_are_in_no_process_of_an_agent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        f"{prefix}_{name}" for prefix in ("MESHHOST", "MESHAGENT") for name in ("WEBHOOK_SECRET", "ADMIN_KEY", "SECRET")
    }
    for name in secrets:
        monkeypatch.setenv(name, "not-for-agents-to-be-read-by-anybody")
    monkeypatch.setenv("MESHHOST_API_KEY", "of-the-program")
    hosted = await serve("process", classes=[misbehaving.Normal])
    await with_neighbour(hosted)
    found = (await hosted.asked("neighbour"))["environment"]
    assert {name: found[name] for name in secrets} == dict.fromkeys(secrets, "")
    assert "not-for-agents" not in str(found)
    assert found["MESHHOST_API_KEY"] == "of-the-program"


async def test_only_root_gives_processes_another_user(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(
        SettingsError, match="isolation_uid: only a host that runs as root can start processes of user 65534"
    ):
        await serve("process", classes=[misbehaving.Normal], options={"isolation_uid": 65534})
    with pytest.raises(SettingsError, match="isolation_uid: expected the number of a user other than root, not 0"):
        ProcessOptions(isolation_uid=0)


EXITS = {
    misbehaving.ExitsInConstructor: "SystemExit",
    misbehaving.ExitsInStart: "KeyboardInterrupt",
    misbehaving.ExitsInAnAwaitedTask: "SystemExit",
    misbehaving.ExitsInATask: "SystemExit",
    misbehaving.ExitsInAPlainHandler: "SystemExit",
    misbehaving.Panics: "Panic",
    misbehaving.CancelsItself: "cancelled by its own code",
}


@both
@pytest.mark.parametrize("cls", EXITS, ids=lambda cls: cls.__name__)
async def test_an_agent_that_ends_the_program_ends_only_itself(serve: Serve, isolation: str, cls: type) -> None:
    """sys.exit() or another BaseException, wherever an agent raises it: it crashes, and its neighbours live."""
    once_more = RestartPolicy(first_delay=0.0, max_delay=0.0, max_restarts=1)
    hosted = await serve(isolation, classes=[misbehaving.Normal, cls], restart=once_more)
    await with_neighbour(hosted)
    spawn = await hosted.called(cls)
    if "Handler" in cls.__name__:
        async with hosted.server.client(name="asks") as room:
            await room.messaging.enable()
            while spawn.state is not State.FAILED:
                for one in room.messaging.remote_participants:
                    if one.get_attribute("name") == "agent":
                        with contextlib.suppress(NotFoundError):  # it crashes at this moment
                            await room.messaging.send_message(to=one, type="?", message={})
                await asyncio.sleep(0.1)
    await soon(spawn.wait_state(State.FAILED), 20.0)
    assert spawn.restarts == 1
    assert spawn.last_error is not None
    assert EXITS[cls] in spawn.last_error.text + spawn.last_error.traceback
    await neighbour_works(hosted)


@both
async def test_an_exit_in_the_task_of_a_handler_fails_that_message_only(serve: Serve, isolation: str) -> None:
    cls = misbehaving.ExitsInAHandler
    hosted = await serve(isolation, classes=[misbehaving.Normal, cls], restart=NEVER_AGAIN)
    await with_neighbour(hosted)
    agent = await hosted.called(cls)
    await soon(agent.wait_state(State.RUNNING))
    async with hosted.server.client(name="asks") as room:
        await room.messaging.enable()
        found: list[Any] = []
        while not found:
            found = [one for one in room.messaging.remote_participants if one.get_attribute("name") == "agent"]
            await asyncio.sleep(0.05)
        for _ in range(3):
            await room.messaging.send_message(to=found[0], type="?", message={})
        # Asked after the messages, and answered by the same program: they have been handled.
        await neighbour_works(hosted)
        assert agent.state is State.RUNNING
        assert agent.restarts == 0


@both_ways
async def test_a_process_does_not_stay_for_a_thread_of_its_agent(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    hosted = await serve("process", classes=[misbehaving.LeavesAThread], restart=RestartPolicy(kind="temporary"))
    spawn = await hosted.called(misbehaving.LeavesAThread)
    await soon(spawn.wait_state(State.RUNNING))
    await soon(spawn.wait_state(State.STOPPED))  # its thread sleeps for ten minutes
    (record,) = [record for record in caplog.records if "threads did not end in time" in record.getMessage()]
    assert "asyncio_0" in str(vars(record)["threads"])


@both
async def test_an_agent_that_ends_the_program_while_it_leaves_has_left(
    serve: Serve, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    hosted = await serve(isolation, classes=[misbehaving.Normal, misbehaving.ExitsWhenItLeaves])
    await with_neighbour(hosted)
    spawn = await hosted.called(misbehaving.ExitsWhenItLeaves)
    await soon(spawn.wait_state(State.RUNNING))
    assert spawn.activity is None
    report = await soon(hosted.host.parts.supervisor.stop(spawn))
    assert (spawn.state, report.finished) == (State.STOPPED, ("agent in room",))
    await until(lambda: "agent could not stop" in caplog.text, "it is logged")
    await neighbour_works(hosted)


@both
async def test_a_crashed_agent_is_started_again_until_its_policy_gives_up(serve: Serve, isolation: str) -> None:
    hosted = await serve(isolation, restart=RestartPolicy(first_delay=0.0, max_delay=0.0, max_restarts=2))
    spawn = await hosted.called(misbehaving.CrashesLater)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.restarts == 2


@both
async def test_an_agent_that_never_starts_is_ended_by_the_start_timeout(serve: Serve, isolation: str) -> None:
    hosted = await serve(isolation, start_timeout=3.0)
    await with_neighbour(hosted)
    spawn = await hosted.called(misbehaving.NeverStarts)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert "did not report running within 3 s" in spawn.last_error.text
    await neighbour_works(hosted)


@both
@pytest.mark.parametrize("name", ["IgnoresCancellation", "HangsInStop"])
async def test_a_stop_is_bounded_for_an_agent_that_will_not_leave(serve: Serve, isolation: str, name: str) -> None:
    cls = getattr(misbehaving, name)
    hosted = await serve(isolation, drain=1.0, cleanup_seconds=4.0 if isolation == "process" else 0.3)
    neighbour = await with_neighbour(hosted)
    spawn = await hosted.called(cls)
    await soon(spawn.wait_state(State.RUNNING))
    # The agent never leaves by itself: a stop that were not bounded would not return.
    try:
        report = await soon(hosted.host.stop())
    finally:
        if isolation == "task":
            cls.release.set()
    await soon(spawn.wait_state(State.STOPPED, State.FAILED))

    assert neighbour.state is State.STOPPED
    if isolation == "process":
        assert (report.aborted, report.stuck, spawn.state) == (("agent in room",), (), State.STOPPED)
    else:
        # A task cannot be killed: at best it is left behind, at worst it is named as one that would not leave.
        assert report.aborted + report.stuck == ("agent in room",)


@both
async def test_a_stop_is_bounded_for_an_agent_in_the_middle_of_its_start(
    serve: Serve, isolation: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hosted = await serve(isolation, drain=1.0)
    neighbour = await with_neighbour(hosted)
    spawn = await hosted.called(misbehaving.NeverStarts)
    await until(lambda: "starts for ever" in caplog.messages, "it starts")
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(hosted.host.stop())
        await soon(spawn.wait_state(State.DRAINING))
        await until(lambda: spawn.activity == "its start", "what it does is told")
        report = await soon(stopping)
    assert neighbour.state is State.STOPPED
    assert (report.aborted, report.stuck, spawn.state) == (("agent in room",), (), State.STOPPED)


@both
async def test_a_stop_is_bounded_for_an_agent_that_is_cut_off_from_its_room(
    short_lived: tuple[RunningServer, AsyncExitStack],
    serve: Serve,
    isolation: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    other, life = short_lived
    hosted = await serve(isolation, drain=3.0, allowed=[other.url])
    spawn = await Hosted(hosted.host, other, hosted.http, isolation).called(misbehaving.Normal)
    await soon(spawn.wait_state(State.RUNNING))
    await life.aclose()
    await until(lambda: "room connection lost" in caplog.messages, "it is cut off")
    report = await soon(hosted.host.stop())
    assert (report.stuck, spawn.state) == ((), State.STOPPED)


@both
async def test_what_an_agent_does_is_told_while_it_works_and_while_it_stops(serve: Serve, isolation: str) -> None:
    hosted = await serve(isolation, drain=2.0)
    spawn = await hosted.called(misbehaving.TellsWhatItDoes)
    await until(lambda: spawn.activity == "counting sheep", "it tells what it does")
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(hosted.host.stop())
        await until(lambda: spawn.activity == "its stop", "it is stopping")
        await soon(stopping)
    assert spawn.activity is None


async def test_a_process_that_does_not_answer_is_what_is_told_of_it(serve: Serve) -> None:
    hosted = await serve("process", drain=0.5)
    blocked = await hosted.called(misbehaving.TellsAndBlocks)
    await until(
        lambda: (blocked.activity or "").startswith("its process, which has not answered for"), "silence is told"
    )
    await until(lambda: (blocked.activity or "").endswith("; before that counting sheep"), "what it did before is told")


@both
async def test_a_dismissed_agent_and_one_whose_room_ended_are_not_started_again(serve: Serve, isolation: str) -> None:
    hosted = await serve(isolation, restart=RestartPolicy(first_delay=0.0, max_delay=0.0))
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.RUNNING))
    async with hosted.server.client(name="boss") as room:
        await room.messaging.enable()
        await until(lambda: len(room.messaging.remote_participants) > 0, "the agent is there")
        for one in room.messaging.remote_participants:
            await room.messaging.send_message(to=one, type="dismiss", message={})
        await soon(spawn.wait_state(State.STOPPED))
    assert (spawn.reason, spawn.restarts) == ("dismissed", 0)


@both
async def test_an_agent_whose_token_is_refused_is_not_started_again(serve: Serve, isolation: str) -> None:
    hosted = await serve(isolation, restart=RestartPolicy(first_delay=0.0, max_delay=0.0))
    token = hosted.server.token("room", name="agent", role="agent")
    head, _, signature = token.rpartition(".")
    forged = f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    spawn = await hosted.called(misbehaving.Normal, token=forged)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.restarts == 0
    assert "refused" in spawn.reason
    assert signature[1:] not in spawn.reason


# What only a process survives


@both_ways
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CallsExit", "exit code 3"),
        ("RaisesSystemExit", "the agent raised SystemExit"),
        ("KillsItself", "killed by SIGKILL"),
        ("Segfaults", "killed by SIGSEGV"),
        ("BlocksForEver", "the agent's process was stuck: its event loop did not answer for 1 s"),
        ("HoldsTheInterpreter", "the agent's process was stuck: its event loop did not answer for 1 s"),
        ("EatsMemory", "over its memory limit"),
        ("SpeaksNonsense", "sent a frame that is too long"),
        ("SpeaksOutOfTurn", "sent a ping message, which only the host may send"),
    ],
)
async def test_what_would_end_or_hold_a_whole_host_is_one_agents_crash(serve: Serve, name: str, text: str) -> None:
    hosted = await serve("process", options={"stuck_seconds": 1.0, "memory_mb": 300})
    await with_neighbour(hosted)
    spawn = await hosted.called(getattr(misbehaving, name))
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert spawn.last_error.type == "MeshhostError"
    assert text in spawn.last_error.text
    if "stuck" in text:
        assert "misbehaving.py" in spawn.last_error.text
    await neighbour_works(hosted)


async def test_memory_is_warned_of_once_before_it_is_too_much(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    hosted = await serve("process", options={"memory_mb": 300})
    spawn = await hosted.called(misbehaving.EatsMemory)
    await soon(spawn.wait_state(State.FAILED))
    assert [record.limit_mb for record in caplog.records if "near its memory limit" in record.getMessage()] == [300]


async def test_a_stuck_agent_is_gone_within_bounds_when_the_host_stops(serve: Serve) -> None:
    hosted = await serve("process", drain=0.5)
    spawn = await hosted.called(misbehaving.BlocksForEver)
    await soon(spawn.wait_state(State.RUNNING))
    report = await soon(hosted.host.stop())
    assert report.aborted == ("agent in room",)
    assert spawn.state is State.STOPPED


@both_ways
@pytest.mark.parametrize("name", ["HasChildren", "LeavesItsChildren"])
async def test_what_an_agent_started_goes_with_it(serve: Serve, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hosted = await serve("process", drain=5.0)
    spawn = await hosted.called(getattr(misbehaving, name))
    await until(lambda: any(hasattr(record, "pids") for record in caplog.records), "the agent has children")
    pids = next(list(map(int, record.pids.split(","))) for record in caplog.records if hasattr(record, "pids"))
    assert len(pids) == 3
    if name == "LeavesItsChildren":
        await soon(spawn.wait_state(State.STOPPED, State.FAILED))
    else:
        assert all(map(psutil.pid_exists, pids))
        await hosted.host.stop()
    await until(lambda: not any(map(is_running, pids)), "no grandchild is left", 5.0)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # init may be slow to reap it
    except psutil.NoSuchProcess:
        return False


@both_ways
async def test_errors_and_odd_fields_are_logged_here_as_they_were_there(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    hosted = await serve("process")
    spawn = await hosted.called(misbehaving.LogsAnError)
    await soon(spawn.wait_state(State.RUNNING))
    [record] = [record for record in caplog.records if record.name == "misbehaving"]
    assert (record.getMessage(), record.levelname, record.place) == ("could not find it", "ERROR", "cellar")
    assert record.odd.startswith("<object object")
    assert record.filename == "misbehaving.py"
    assert record.exc_info is not None
    assert type(record.exc_info[1]).__name__ == "KeyError"
    assert "KeyError: 'lost'" in caplog.text


async def test_a_trace_goes_on_in_the_process(serve: Serve) -> None:
    hosted = await serve("process")
    call = {
        "room_name": "room",
        "room_url": hosted.server.server.room_url("room"),
        "token": hosted.server.token("room", name="traced", role="agent"),
    }
    request = admit(call, AllowedRooms([hosted.server.url]))
    parent = SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(parent)):
        spawn = await hosted.host.parts.agents.answer(hosted.host.parts.routes["/Normal"], request)
    await soon(spawn.wait_state(State.RUNNING))
    assert (await hosted.asked("traced"))["trace"] == f"00-{0x1234:032x}-{0x5678:016x}-01"


# The pool


@both_ways
async def test_a_warm_process_is_taken_at_once_and_replaced(serve: Serve) -> None:
    hosted = await serve("process", options={"size": 1})
    pool = hosted.host.parts.pool
    await until(lambda: len(pool.idle) == 1, "a process is warm")
    warm = pool.idle[0].pid
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.RUNNING))
    assert [process.pid for process in pool.running] == [warm]
    await until(lambda: len(pool.idle) == 1, "another is warm")
    metrics = await hosted.text("/metrics")
    assert re.search(r'meshhost_process_start_seconds_count\{kind="warm"\} 1\.0', metrics)
    assert re.search(r'meshhost_processes\{use="idle"\} 1\.0', metrics)
    memory = re.search(r'meshhost_process_memory_bytes\{use="agent"\} (\S+)', metrics)
    assert memory is not None
    assert float(memory[1]) > 10_000_000


@both_ways
async def test_an_idle_process_that_died_is_noticed_and_replaced(serve: Serve) -> None:
    hosted = await serve("process", options={"size": 1})
    pool = hosted.host.parts.pool
    await until(lambda: len(pool.idle) == 1, "a process is warm")
    dead = pool.idle[0]
    os.kill(dead.pid, signal.SIGKILL)
    await until(lambda: bool(pool.idle) and dead not in pool.idle, "another took its place")
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.RUNNING))


@both_ways
async def test_hooks_run_before_a_process_is_ready_and_the_right_host_of_two_is_taken(serve: Serve) -> None:
    prewarmed = type("Prewarmed", (misbehaving.Normal,), {})
    hosted = await serve("process", program="prewarmed.py", classes=[prewarmed])
    spawn = await hosted.called(prewarmed)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert spawn.last_error.text == "['host', 'Prewarmed'] prewarmed.py __main__"


@both_ways
@pytest.mark.parametrize(
    ("program", "boot_seconds", "error", "text"),
    [
        ("raises.py", 60.0, "ImportError", "no module named better"),
        ("hook_raises.py", 60.0, "OSError", "the weights are gone"),
        (
            "hostless.py",
            60.0,
            "MeshhostError",
            "the program ended without running a ServiceHost with the paths ['/Normal']",
        ),
        ("missing.py", 60.0, "FileNotFoundError", "missing.py"),
        ("slow.py", 2.0, "MeshhostError", "the program was not ready in its process within 2 s"),
    ],
)
async def test_a_program_that_does_not_come_to_its_host_is_a_crash_that_says_why(
    serve: Serve, program: str, boot_seconds: float, error: str, text: str
) -> None:
    options = {"boot_seconds": boot_seconds}
    hosted = await serve("process", program=program, classes=[misbehaving.Normal], options=options)
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert (spawn.last_error.type, text in spawn.last_error.text) == (error, True), spawn.last_error
    assert hosted.host.parts.pool._failures < 6  # it is not tried in a tight loop


async def test_a_full_host_of_processes_refuses_with_503(serve: Serve) -> None:
    hosted = await serve("process", options={"max_running": 1})
    await with_neighbour(hosted)
    status, answer = await hosted.post("Normal", identity="one-too-many")
    assert (status, answer) == (503, {"error": "this host is full: 1 agents with processes of their own live here"})


async def test_a_path_with_processes_takes_no_sockets(serve: Serve) -> None:
    hosted = await serve("process")
    data = {
        "room_name": "room",
        "room_url": hosted.server.server.room_url("room"),
        "token": hosted.server.token("room"),
    }
    headers = {"Meshhost-Webhook": json.dumps({"event": "room.call", "data": data})}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await hosted.http.ws_connect(f"http://127.0.0.1:{hosted.host.port}/Normal", headers=headers)
    assert refused.value.status == 405


async def test_a_system_that_starts_no_process_is_a_crash_that_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter_module.sys, "executable", "/no/such/python")
    hosted = await serve("process")
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert "cannot start a process for an agent: No such file" in spawn.last_error.text


async def test_a_turn_that_does_not_come_is_told(serve: Serve) -> None:
    # One boots at a time and takes nearly as long as it may: the third in the row waits in vain.
    options = {"boot_seconds": 1.5, "concurrency": 1}
    hosted = await serve("process", program="slow.py", classes=[misbehaving.Normal], options=options)
    spawns = [await hosted.called(misbehaving.Normal, identity=f"agent-{number}") for number in range(3)]
    for spawn in spawns:
        await soon(spawn.wait_state(State.FAILED))
    texts = [spawn.last_error.text for spawn in spawns if spawn.last_error is not None]
    assert "was not ready in its process within 1.5 s" in texts[0]
    assert "no process for the agent became ready within 3 s" in texts[2]


@both_ways
async def test_a_host_that_stops_while_processes_boot_leaves_none(serve: Serve) -> None:
    hosted = await serve("process", program="slow.py", classes=[misbehaving.Normal], drain=0.2)
    spawn = await hosted.called(misbehaving.Normal)
    await hosted.host.stop()
    assert spawn.state is State.STOPPED


async def test_a_host_without_a_program_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", type(sys)("__main__"))
    host = ServiceHost(port=0, webhook_secret="")
    host.add_path("/a", cls=misbehaving.Normal, isolation="process")
    with pytest.raises(SettingsError, match="it must be a file"):
        await host.start()


# Forked from a template


def opened(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


async def test_children_of_a_template_share_what_it_imported_and_nothing_else(serve: Serve) -> None:
    hosted = await serve("process")
    names = ("first", "second")
    for name in names:
        spawn = await hosted.called(misbehaving.Normal, identity=name)
        await soon(spawn.wait_state(State.RUNNING))
    answers = [await hosted.asked(name) for name in names]
    template = hosted.host.parts.pool.template
    assert {answer["imported_by"] for answer in answers} == {template.pid}
    assert all(psutil.Process(answer["pid"]).ppid() == os.getpid() for answer in answers)
    assert answers[0]["random"] != answers[1]["random"]
    for answer in answers:
        # Besides the three standard streams: its loop, and the loop's pipe to itself (two sockets); its socket to the host and
        # its pipe for stack dumps; its connection to the room.
        own = list(answer["descriptors"])
        for stream in ("/dev/null", *map(opened, (1, 2))):
            own.remove(stream.partition(":[")[0])
        assert own == ["anon_inode", "pipe", "socket", "socket", "socket", "socket"]


async def test_agents_outlive_their_template_and_another_takes_its_place(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    hosted = await serve("process", options={"size": 1})
    pool = hosted.host.parts.pool
    await until(lambda: len(pool.idle) == 1, "a process is warm")
    await with_neighbour(hosted)
    await until(lambda: len(pool.idle) == 1, "another is warm")
    template, warm = pool.template, pool.idle[0]
    metrics = await hosted.text("/metrics")
    assert re.search(r'meshhost_processes\{use="template"\} 1\.0', metrics)
    assert float(re.search(r'meshhost_process_memory_bytes\{use="template"\} (\S+)', metrics)[1]) > 10_000_000

    os.kill(template.pid, signal.SIGKILL)
    await until(lambda: pool.template not in (None, template), "another template is there")
    assert pool.idle == (warm,)
    await neighbour_works(hosted)
    for name in ("warm", "forked"):
        spawn = await hosted.called(misbehaving.Normal, identity=name)
        await soon(spawn.wait_state(State.RUNNING))
    assert (await hosted.asked("warm"))["imported_by"] == template.pid
    assert (await hosted.asked("forked"))["imported_by"] == pool.template.pid
    [record] = [record for record in caplog.records if record.getMessage() == "template for agents' processes ended"]
    assert record.ended == "killed by SIGKILL"


async def test_a_call_does_not_fail_because_the_template_was_just_killed(serve: Serve) -> None:
    hosted = await serve("process")
    pool = hosted.host.parts.pool
    await until(lambda: pool.template is not None, "a template is there")
    os.kill(pool.template.pid, signal.SIGKILL)
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.RUNNING))
    assert spawn.restarts == 0


async def test_a_template_that_hangs_is_replaced(serve: Serve) -> None:
    # Long enough for the template that takes its place to fork on a busy machine: only the stopped one must miss it.
    hosted = await serve("process", options={"fork_seconds": 2.0})
    pool = hosted.host.parts.pool
    await until(lambda: pool.template is not None, "a template is there")
    template = pool.template
    os.kill(template.pid, signal.SIGSTOP)
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.RUNNING, State.FAILED))
    assert spawn.state is State.RUNNING, spawn.last_error
    await until(lambda: pool.template not in (None, template), "another template is there")


async def test_a_child_that_nobody_waits_for_any_more_is_ended(serve: Serve) -> None:
    hosted = await serve("process", drain=0.2)
    pool = hosted.host.parts.pool
    await until(lambda: pool.template is not None, "a template is there")
    template = psutil.Process(pool.template.pid)
    template.suspend()
    spawn = await hosted.called(misbehaving.Normal)
    await until(lambda: pool._templates._template._waiting, "a child was asked for")
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(hosted.host.stop())
        await soon(spawn.wait_state(State.STOPPED))
        template.resume()
        await soon(stopping)
    # That no process is left is what `serve` looks at.
    assert pool.template is None


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("thread", "program started threads while it was imported: counts sheep"),
        ("database", "program holds what cannot be shared: /"),
        ("process", "program started processes while it was imported"),
        ("task", "program has other tasks in its event loop: counts sheep"),
        ("loop", "program runs on an event loop of another kind: OtherLoop"),
    ],
)
async def test_a_program_that_cannot_be_forked_is_booted_each_time_and_the_log_says_why_once(
    serve: Serve, kind: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UNFORKABLE", kind)
    hosted = await serve("process", program="unforkable.py", classes=[misbehaving.Normal], options={"start": "auto"})
    for name in ("first", "second"):
        spawn = await hosted.called(misbehaving.Normal, identity=name)
        await soon(spawn.wait_state(State.RUNNING))
    answer = await hosted.asked("second")
    assert answer["imported_by"] == answer["pid"]
    assert hosted.host.parts.pool.template is None
    [record] = [record for record in caplog.records if "none is forked" in record.getMessage()]
    assert record.reason.startswith(reason)


async def test_a_program_that_must_be_forked_and_cannot_is_an_error_that_says_why(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFORKABLE", "thread")
    hosted = await serve("process", program="unforkable.py", classes=[misbehaving.Normal])
    spawn = await hosted.called(misbehaving.Normal)
    await soon(spawn.wait_state(State.FAILED))
    assert spawn.last_error is not None
    assert "cannot be forked: program started threads while it was imported: counts sheep" in spawn.last_error.text


async def test_a_system_that_hands_no_process_over_boots_them(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process_template_module.adoption, "is_possible", lambda: False)
    hosted = await serve("process", options={"start": "auto"})
    await with_neighbour(hosted)
    await neighbour_works(hosted)
    assert "the system does not let a process adopt orphans" in [
        vars(record).get("reason") for record in caplog.records
    ]


async def test_forked_processes_that_do_not_become_the_hosts_are_booted_instead(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopted = process_template_module.AdoptedProcess

    def end_and_adopt(pid: int) -> None:
        adopted(pid).kill_and_wait()
        adopted(pid)

    monkeypatch.setattr(process_template_module, "AdoptedProcess", end_and_adopt)
    hosted = await serve("process", options={"start": "auto"})
    await with_neighbour(hosted)
    answer = await hosted.asked("neighbour")
    assert answer["imported_by"] == answer["pid"]
    assert hosted.host.parts.pool.template is None


async def test_each_child_reads_open_files_for_itself_and_ends_nothing_of_the_templates(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ENDED", str(tmp_path / "ended"))
    reads = type("Reads", (misbehaving.Normal,), {})
    hosted = await serve("process", program="forkable.py", classes=[reads])
    texts = set()
    for _ in range(2):
        spawn = await hosted.called(reads)
        await soon(spawn.wait_state(State.FAILED))
        assert spawn.last_error is not None
        texts.add(spawn.last_error.text)
    assert texts == {"the rest of it, DEBUG, by a child"}
    ended = (tmp_path / "ended").read_text().splitlines()
    assert len(ended) == 2
    assert set(ended) == {"child"}


# A program of its own, as users run it


@pytest.mark.parametrize(("start", "processes"), [("fork", 3), ("boot", 2)])
async def test_a_programs_processes_end_with_it_even_when_it_is_killed(
    tmp_path: Path, server: RunningServer, start: str, processes: int
) -> None:
    environment = {
        **os.environ,
        "MESHHOST_PORT": "0",
        "MESHHOST_API_URL": server.url,
        "MESHHOST_PROCESS_POOL": "2",
        "MESHHOST_PROCESS_START": start,
        "MESHHOST_LOG_LEVEL": "INFO",
    }
    marker = tmp_path / "started"
    program = subprocess.Popen([sys.executable, str(PROGRAMS / "main.py"), str(marker)], env=environment)  # noqa: ASYNC220 - returns at once
    try:
        own = psutil.Process(program.pid)
        await until(lambda: len(own.children()) == processes, "the pool is there")
        # Each ran the program again, with its arguments.
        await until(lambda: marker.exists() and int(marker.read_text()) != program.pid, "a child ran it")
        children = own.children()
        program.kill()
        await until(lambda: not any(is_running(child.pid) for child in children), "the children are gone", 5.0)
    finally:
        program.kill()
        program.wait()


@both_ways
async def test_a_program_with_its_host_at_the_top_serves_calls_from_processes_and_stops(
    server: RunningServer, http: aiohttp.ClientSession, start: str
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "MESHHOST_PORT": str(port),
        "MESHHOST_API_URL": server.url,
        "MESHHOST_PROCESS_START": start,
    }
    program = subprocess.Popen([sys.executable, str(PROGRAMS / "main.py")], env=environment)  # noqa: ASYNC220 - returns at once
    try:
        async with asyncio.timeout(20):
            while not await _answers(http, f"http://127.0.0.1:{port}/readyz"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        data = {
            "room_name": "room",
            "room_url": server.server.room_url("room"),
            "token": server.token("room", name="agent", role="agent"),
        }
        async with http.post(f"http://127.0.0.1:{port}/Normal", data=webhook_body("room.call", data)) as response:
            assert response.status == 200
        async with server.client(name="asker") as room:
            answer = await ask(room, "agent")
        assert psutil.Process(answer["pid"]).ppid() == program.pid
        program.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(program.wait, 10) == 0
        assert not is_running(answer["pid"])
    finally:
        program.kill()
        program.wait()


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


# Blocked event loops


async def test_who_blocks_the_loop_is_named_and_moved_to_a_process(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Long enough for what a busy machine does to everybody, which is not the agent's doing.
    monkeypatch.setenv("MESHHOST_BLOCK_SECONDS", "0.6")

    class CrashesLater(misbehaving.Normal):  # type: ignore[misc, name-defined]
        async def wait_ended(self) -> None:
            time.sleep(1.5)  # noqa: ASYNC251 - that is the point
            await asyncio.Event().wait()

    hosted = await serve("task", classes=[CrashesLater], on_block="isolate", blocks_allowed=2)
    for number in range(2):
        spawn = await hosted.called_when_it_has_time(CrashesLater, identity=f"agent-{number}")
        await soon(spawn.wait_state(State.RUNNING))
        counted = f'meshhost_loop_blocks_total{{path="/CrashesLater"}} {number + 1}.0'
        await until(lambda text=counted: text in hosted.host.parts.metrics.render().decode(), "the block was counted")
    # From now on in a process, where the program's class of this name crashes.
    moved = await hosted.called_when_it_has_time(CrashesLater, identity="moved")
    await soon(moved.wait_state(State.FAILED))

    assert moved.last_error is not None
    assert moved.last_error.type == "ZeroDivisionError"
    blocked = [record for record in caplog.records if record.getMessage() == "event loop is blocked"]
    assert [record.identity for record in blocked] == ["agent-0", "agent-1"]
    assert blocked[0].spawn_id
    assert "time.sleep(1.5)" in blocked[0].stack
    live = json.loads(await hosted.text("/livez"))
    assert live["ok"] is True
    assert live["last_block"]["path"] == "/CrashesLater"
    assert live["last_block"]["seconds"] > 0.6
    metrics = await hosted.text("/metrics")
    assert 'meshhost_loop_blocks_total{path="/CrashesLater"} 2.0' in metrics
    assert "meshhost_loop_lag_seconds_count" in metrics


# The check itself


async def test_processes_are_found_that_nobody_is_the_parent_of(nothing_is_left: str) -> None:
    # Both a child that was executed and one that was forked, whose parents are gone.
    script = "import os, subprocess, time\nsubprocess.Popen(['sleep', '600'])\nif not os.fork(): time.sleep(600)"
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await soon(program.wait()) == 0
    found = marked_processes(nothing_is_left)
    try:
        assert len(found) == 2, found
        assert not psutil.Process().children(recursive=True)
    finally:
        for pid in [int(text.partition("pid=")[2].partition(",")[0]) for text in found]:
            os.kill(pid, signal.SIGKILL)


async def test_sockets_and_tasks_are_found_that_were_forgotten() -> None:
    sockets, tasks = len(open_sockets()), len(other_tasks())
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        assert len(open_sockets()) == sockets + 2
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        assert len(other_tasks()) == tasks + 1


@both
async def test_children_of_an_agent_are_known_by_the_mark(serve: Serve, isolation: str, nothing_is_left: str) -> None:
    hosted = await serve(isolation)
    await with_neighbour(hosted)
    # Its process, and the template that this was forked from.
    assert len(marked_processes(nothing_is_left)) == (2 if isolation == "process" else 0)
