"""`run_service(reload=True)` with real programs: a change starts the program again, and a fault waits for the next."""

import asyncio
import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshhost.app.service_runner import RunTimes, run_service
from meshhost.identity.keys import encode_api_key, new_api_key
from meshhost.testing.server import running_server

QUICK = RunTimes(look_at_sources=0.05)
KEY = new_api_key("11111111-2222-3333-4444-555555555555")
PROGRAM = """
    import asyncio
    from meshhost.api.services import ServiceHost

    host = ServiceHost()

    @host.path("/quiet", identity={identity!r})
    class Quiet:
        async def start(self, *, room):
            pass

        async def stop(self):
            with open("stopped", "a") as file:
                file.write({identity!r})

    asyncio.run(host.run())
"""


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def test_a_change_drains_the_program_and_starts_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    main = folder / "main.py"
    told: list[tuple[str, dict[str, Any]]] = []

    def write(source: str) -> None:
        main.write_text(textwrap.dedent(source))

    # What is done at which step: first a change, then a fault, then its repair, then the end.
    actions: list[tuple[str, Callable[[], object]]] = [
        ("joined", lambda: write(PROGRAM.format(identity="second"))),
        ("joined", lambda: write("raise SystemExit(5)")),
        ("ended", lambda: write(PROGRAM.format(identity="third"))),
        ("joined", terminate),
    ]

    def progress(step: str, _: str, facts: dict[str, Any]) -> None:
        told.append((step, facts))
        if actions and actions[0][0] == step:
            actions.pop(0)[1]()

    monkeypatch.chdir(folder)
    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(KEY))
    monkeypatch.setenv("MESHHOST_DRAIN_SECONDS", "5")
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    for name in ("MESHHOST_WEBHOOK_SECRET", "MESHHOST_PORT", "MESHHOST_HOST"):
        monkeypatch.delenv(name, raising=False)
    write(PROGRAM.format(identity="first"))
    async with running_server(tmp_path / "server", key=KEY) as server:
        monkeypatch.setenv("MESHHOST_API_URL", server.url)
        async with asyncio.timeout(50):
            assert await run_service("main.py", room="room", progress=progress, reload=True, times=QUICK) == 0
    steps = ["server", "no_model", "host", "called", "joined"]
    again = ["host", "called", "reloaded", "joined"]
    assert [step for step, _ in told] == [*steps, *again, "ended", *again]
    assert [facts["identity"] for step, facts in told if step == "joined"] == ["first", "second", "third"]
    assert [facts["files"] for step, facts in told if step == "reloaded"] == [["main.py"], ["main.py"]]
    # In order: each agent's stop() was awaited.
    assert (folder / "stopped").read_text() == "firstsecondthird"


async def test_a_signal_while_the_program_failed_ends_the_run_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(KEY))
    (tmp_path / "main.py").write_text("raise SystemExit(5)")
    async with running_server(tmp_path / "server", key=KEY) as server, asyncio.timeout(20):
        monkeypatch.setenv("MESHHOST_API_URL", server.url)
        code = await run_service(
            "main.py", room="room", reload=True, progress=lambda step, *_: terminate() if step == "ended" else None
        )
    assert code == 5


SLOW_TO_LEAVE = """
    import asyncio
    from meshhost.api.services import ServiceHost

    host = ServiceHost()

    @host.path("/busy", identity="busy", drain_seconds=600)
    class Busy:
        async def start(self, *, room):
            pass

        async def drain(self):
            open("draining", "w").close()
            await asyncio.Event().wait()

        async def stop(self):
            open("stopped", "w").close()

    asyncio.run(host.run())
"""


@pytest.mark.parametrize("cause", ["change", "signal"])
async def test_a_second_signal_while_the_program_drains_skips_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    main = folder / "main.py"
    main.write_text(textwrap.dedent(SLOW_TO_LEAVE))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MESHHOST_API_KEY", encode_api_key(KEY))
    monkeypatch.setenv("MESHHOST_CONFIG_DIR", str(tmp_path / "config"))
    for name in ("MESHHOST_WEBHOOK_SECRET", "MESHHOST_PORT", "MESHHOST_HOST"):
        monkeypatch.delenv(name, raising=False)
    steps: list[str] = []

    def progress(step: str, *_: Any) -> None:
        steps.append(step)
        if step == "joined" and cause == "change":
            main.write_text(textwrap.dedent(SLOW_TO_LEAVE) + "# changed")
        elif step == "joined":
            terminate()

    async def interrupt() -> None:
        while not (folder / "draining").exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
        # After a change of the source the drain is nobody's wish to end: it takes two signals to say so.
        for _ in range(2 if cause == "change" else 1):
            terminate()
            await asyncio.sleep(0.1)  # two signals at once may be one to the kernel

    async with running_server(tmp_path / "server", key=KEY) as server:
        monkeypatch.setenv("MESHHOST_API_URL", server.url)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(interrupt())
            code = await run_service("main.py", room="room", progress=progress, reload=True, times=QUICK)
    assert (code, steps) == (0, ["server", "no_model", "host", "called", "joined"])
    assert (folder / "stopped").exists()  # its stop() was awaited all the same
