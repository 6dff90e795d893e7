"""`run_service` with real programs: what is started, what is told, and how it ends."""

import asyncio
import json
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshhost.app.config_file import ServerFile
from meshhost.app.ports import reserved_port
from meshhost.app.service_runner import RunTimes, run_service
from meshhost.errors import CallRefusedError, InvalidRequestError, SettingsError
from meshhost.gateway.provider import Caller, ProviderTable
from meshhost.hosting.calls.specs import service_spec
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.testing.server import RunningServer, running_server

KEY = new_api_key("11111111-2222-3333-4444-555555555555")

REAL = """
    import asyncio
    from meshhost.api.services import ServiceHost

    host = ServiceHost()

    @host.path("/quiet", identity="quiet-one")
    class Quiet:
        async def start(self, *, room):
            pass

        async def stop(self):
            pass

    asyncio.run(host.run())
"""

WORKING = """
    import asyncio
    from meshhost.agents.worker import Worker
    from meshhost.api.services import ServiceHost

    host = ServiceHost()

    @host.path("/jobs", identity="clerk")
    class Clerk(Worker):
        def __init__(self):
            super().__init__(queue="jobs", name="clerk")

        async def process_message(self, *, message):
            if message == "bad":
                raise ValueError("bad")

    asyncio.run(host.run())
"""

# Looks like a host, and nobody joins; quick to start.
FAKE = """
    import http.server, json, os, signal, sys, time

    class Handler(http.server.BaseHTTPRequestHandler):
        status = {status}

        def do_GET(self):
            self.answer(200, {spec})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(self.status, {{"ok": True}})
            {after}

        def answer(self, status, value):
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, *_):
            pass

    {before}
    http.server.HTTPServer((os.environ["MESHHOST_HOST"], int(os.environ["MESHHOST_PORT"])), Handler).serve_forever()
"""


def fake(*, status: int = 200, after: str = "pass", before: str = "pass", drain_seconds: float | None = None) -> str:
    endpoints = [("/fake", "fake-one", None)]
    spec = service_spec(name="fake", port=1, endpoints=endpoints, drain_seconds=drain_seconds)
    return FAKE.format(status=status, after=after, before=before, spec=f"json.loads({json.dumps(json.dumps(spec))})")


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    def write(source: str) -> str:
        path = tmp_path / "main.py"
        path.write_text(textwrap.dedent(source))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WEBHOOK_SECRET", "TOKEN", "PORT", "HOST", "ALLOWED_ROOM_URLS", "DATABASE_URL"):
        for prefix in ("MESHHOST", "MESHAGENT"):
            monkeypatch.delenv(f"{prefix}_{name}", raising=False)
    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(KEY))
    monkeypatch.setenv("MESHHOST_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("MESHHOST_DRAIN_SECONDS", "1")
    with reserved_port() as port:
        monkeypatch.setenv("MESHHOST_API_URL", f"http://127.0.0.1:{port}")
        yield


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server", key=KEY) as running:
        monkeypatch.setenv("MESHHOST_API_URL", running.url)
        yield running


class OneModel:
    """A provider that offers a model, and answers nothing."""

    name = "one"

    async def start(self) -> None:
        """See Provider."""

    async def stop(self) -> None:
        """See Provider."""

    async def models(self) -> list[str]:
        return ["small"]

    async def handle(self, request: web.Request, path: str, caller: Caller) -> web.StreamResponse:
        return web.Response(status=503)


class Steps:
    """What was told, and what is done at a step."""

    def __init__(self, **actions: Callable[[], None]) -> None:
        self.told: list[str] = []
        self.facts: dict[str, dict[str, Any]] = {}
        self._actions = actions

    def __call__(self, step: str, sentence: str, facts: dict[str, Any]) -> None:
        assert sentence
        self.told.append(step)
        self.facts[step] = facts
        self._actions.get(step, lambda: None)()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def ran(
    command: str, steps: Steps, room: str = "room", *, shows_jobs: bool = False, port: int = 0, **times: float
) -> int:
    async with asyncio.timeout(30):
        return await run_service(
            command, room=room, progress=steps, shows_jobs=shows_jobs, port=port, times=RunTimes(**times)
        )


async def test_the_steps_of_jobs_are_told_to_programs(
    program: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = ServerFile.model_validate({"queues": {"max_attempts": 1}})
    async with running_server(tmp_path / "server", key=KEY, file=file) as server, server.client() as user:
        monkeypatch.setenv("MESHHOST_API_URL", server.url)
        for message in ("bad", "good"):
            await user.queues.send(name="jobs", message=message)
        steps = Steps(done=terminate)
        assert await ran(program(WORKING), steps, shows_jobs=True) == 0
    jobs = [step for step in steps.told if step in {"taken", "failed", "dead", "done"}]
    assert jobs == ["taken", "failed", "dead", "taken", "done"]
    about = {"identity": "clerk", "room": "room", "path": "/jobs", "queue": "jobs", "message_id": "1", "attempt": 1}
    assert steps.facts["dead"] == about
    assert steps.facts["failed"] == about | {"error": "ValueError: bad"}
    assert steps.facts["taken"] == about | {"message_id": "2"}
    assert steps.facts["done"].keys() == about.keys() | {"seconds"}
    log = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert "message done" in [record["message"] for record in log]


async def test_what_a_program_writes_to_stderr_is_passed_on_whatever_it_is(
    program: Callable[[str], str], server: RunningServer, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = 'sys.stderr.write("{\\nnot a record\\n[1]\\n" + "x" * 3_000_000 + "\\nlast"); sys.stderr.flush()'
    assert await ran(program(fake(before=f"{noise}; os._exit(3)")), Steps(), shows_jobs=True) == 3
    written = capfd.readouterr().err
    assert written.startswith("{\nnot a record\n[1]\nxxx")
    assert written.endswith("x\nlast")
    assert written.count("x") == 3_000_000


async def test_a_program_runs_with_a_room_server_that_is_started_for_it(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    steps = Steps(joined=terminate)
    assert await ran(program(REAL), steps) == 0
    assert steps.told == ["server", "studio", "host", "called", "joined"]
    assert steps.facts["server"]["embedded"] is True
    assert steps.facts["called"] == {"path": "/quiet", "identity": "quiet-one", "room": "room"}
    assert steps.facts["joined"] == {"identity": "quiet-one", "room": "room"}
    assert (tmp_path / "data" / "queues.db").exists()


async def test_a_room_server_that_runs_is_used(program: Callable[[str], str], server: RunningServer) -> None:
    steps = Steps(called=terminate)
    assert await ran(program(fake()), steps) == 143
    assert steps.told == ["server", "no_model", "host", "called"]
    assert steps.facts["server"] == {"url": server.url, "embedded": False}
    assert steps.facts["no_model"] == {"url": server.url}


async def test_a_program_that_sets_its_port_itself_is_found_there(
    program: Callable[[str], str], server: RunningServer
) -> None:
    with reserved_port() as port:
        own = REAL.replace("ServiceHost()", f"ServiceHost(port={port})")
        with pytest.raises(SettingsError, match=r"does it set a port itself.*--port"):
            await ran(program(own), Steps(), discover=0.3)
        steps = Steps(joined=terminate)
        assert await ran(program(own), steps, port=port) == 0
    assert steps.facts["host"] == {"url": f"http://127.0.0.1:{port}"}


async def test_a_port_in_use_is_said_before_the_program_starts(
    program: Callable[[str], str], server: RunningServer
) -> None:
    with pytest.raises(SettingsError, match=r"cannot use port \d+: Address already in use; choose another --port"):
        await ran(program(REAL), Steps(), port=int(server.url.rpartition(":")[2]))


async def test_a_room_server_that_has_a_model_is_not_complained_about(
    program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(called=terminate)
    async with running_server(tmp_path / "server", key=KEY, providers=ProviderTable({"*": OneModel()})) as server:
        monkeypatch.setenv("MESHHOST_API_URL", server.url)
        await ran(program(fake()), steps)
    assert steps.told == ["server", "host", "called"]


async def test_a_room_server_that_does_not_tell_its_models_is_not_complained_about(
    program: Callable[[str], str], server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another project's key: the server refuses its token.
    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(new_api_key("99999999-2222-3333-4444-555555555555")))
    steps = Steps(called=terminate)
    await ran(program(fake()), steps)
    assert steps.told == ["server", "host", "called"]


@pytest.mark.parametrize(
    ("before", "code"),
    [("sys.exit(3)", 3), ("sys.exit()", 1), ("raise ValueError", 1), ("os.kill(os.getpid(), signal.SIGKILL)", 137)],
)
async def test_a_program_that_ends_ends_the_run_with_its_code(
    program: Callable[[str], str], server: RunningServer, before: str, code: int
) -> None:
    assert await ran(program(fake(before=before)), Steps()) == code


@pytest.mark.parametrize(("source", "told"), [("x = 1", ["ended"]), ("raise ValueError", [])])
async def test_a_program_that_ends_in_order_and_served_nothing_is_explained(
    program: Callable[[str], str], server: RunningServer, source: str, told: list[str]
) -> None:
    steps = Steps()
    assert await ran(program(source), steps) == 1  # also of a program that ended with 0: it did not do what was asked
    assert steps.told == ["server", "no_model", *told]
    if "ended" in told:
        text = "the program ended with exit code 0 before it served a path: does it end with asyncio.run(host.run())?"
        assert steps.facts["ended"] == {"reason": text}


async def test_a_program_that_ends_after_it_was_called_ends_the_run(
    program: Callable[[str], str], server: RunningServer
) -> None:
    assert await ran(program(fake(after="os._exit(4)")), Steps()) == 4


async def test_a_program_that_serves_nothing_is_explained_and_ended(
    program: Callable[[str], str], server: RunningServer
) -> None:
    with pytest.raises(SettingsError, match=r"did not serve on MESHHOST_PORT within 0\.3 s: does it run a ServiceHost"):
        await ran(program("import time\ntime.sleep(60)"), Steps(), discover=0.3)


async def test_a_refused_call_is_raised(program: Callable[[str], str], server: RunningServer) -> None:
    with pytest.raises(CallRefusedError, match="answered 401"):
        await ran(program(fake(status=401)), Steps())


async def test_a_program_that_does_not_stop_in_time_is_killed(
    program: Callable[[str], str], server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn = fake(status=401, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    with pytest.raises(CallRefusedError):
        await ran(program(stubborn), Steps(), stop_margin=-0.9)
    assert "the program did not stop in time and is killed" in caplog.messages


async def test_a_program_that_tells_of_a_longer_drain_is_given_it(
    program: Callable[[str], str], server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    # By the environment alone it would be killed at once; it exits after the second that it takes to finish its work.
    slow = fake(
        status=401, drain_seconds=30.0, before="signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), os._exit(0)))"
    )
    with pytest.raises(CallRefusedError):
        await ran(program(slow), Steps(), stop_margin=-0.9)
    assert "the program did not stop in time and is killed" not in caplog.messages


async def test_a_second_signal_is_passed_on_too(program: Callable[[str], str], server: RunningServer) -> None:
    # At its first signal the program has its runner signalled again; it leaves at the second.
    before = textwrap.dedent(
        """
        def first(*_):
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            os.kill(os.getppid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, first)
        """
    ).replace("\n", "\n    ")
    assert await ran(program(fake(before=before)), Steps(called=terminate)) == 7


async def test_agents_are_called_again_and_one_that_does_not_join_is_logged(
    program: Callable[[str], str],
    server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0
    send = WebhookSender.send

    async def counted(self: WebhookSender, url: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise CallRefusedError("busy", status=503)
        if calls == 4:
            terminate()
        return await send(self, url, *arguments, **options)

    monkeypatch.setattr(WebhookSender, "send", counted)
    steps = Steps()
    assert await ran(program(fake()), steps, join=0.1, call_again=0.05) == 143
    assert "joined" not in steps.told
    assert {"agent did not join in time; the host keeps trying", "calling again failed"} <= set(caplog.messages)


@pytest.mark.parametrize("url", ["http://rooms.invalid", "https://127.0.0.1:1"])
async def test_a_room_server_elsewhere_is_not_started_here(
    program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MESHHOST_API_URL", url)
    with pytest.raises(SettingsError, match=r"cannot reach the room server at .*: is MESHHOST_API_URL right"):
        await ran(program(fake()), Steps())


async def refused(run: Coroutine[Any, Any, int], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        await run


async def test_what_cannot_be_run_is_refused_before_anything_is_started(
    program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    await refused(ran(program(REAL), steps, room="No Room"), InvalidRequestError, "room name")
    await refused(ran("/no/main.py", steps), SettingsError, "no file")
    monkeypatch.delenv("MESHHOST_API_KEY")
    await refused(ran(program(REAL), steps), SettingsError, "run `meshhost setup`")
    assert not steps.told
