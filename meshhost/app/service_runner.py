"""Runs a program with a ServiceHost for one room, as `meshhost service run` does.

`run_service` starts the program as a child process (`program`), asks it which paths it serves (`host_api`), calls each into the
room (`room_calls`), and waits until the program ends or a signal comes. When no room server answers at MESHHOST_API_URL and
that URL is on this machine, a room server is started in this process for as long as the run lasts. With `reload` the program is
drained and started again when a source file changes.

Concurrency: everything runs in one task, by races. The run of the program races with the signals; inside, calling races with
the end of the program, and with a change of the sources. The loser of a race is cancelled. Ending the program is never left to
a race: `running_program` ends it when its block is left, whatever the reason.
"""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.app.host_api import POLL_SECONDS, Endpoint, HostApi
from meshhost.app.model_hint import missing_model
from meshhost.app.operator import find_operator_key
from meshhost.app.ports import reserved_port
from meshhost.app.program import RunningProgram, arguments_of, running_program
from meshhost.app.project import api_key_of
from meshhost.app.room_calls import RoomCalls, http_url
from meshhost.app.running_hosts import announced
from meshhost.app.source_watch import SourceWatch
from meshhost.errors import CallRefusedError, SettingsError
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import check_room_name
from meshhost.loopback import is_loopback
from meshhost.settings import Settings, read_settings
from meshhost.signals import StopSignals, stop_signals
from meshhost.tasks import Stopped, Won, first_of

__all__ = ["STOP_MARGIN", "Progress", "RunTimes", "run_service"]

logger = logging.getLogger(__name__)

STOP_MARGIN = 15.0
"""Seconds that a program may take to stop beyond its drain: it aborts agents within 5 s, the rest is for what lies around."""

Progress = Callable[[str, str, dict[str, Any]], None]
"""Called at each step, with a word for programs, a sentence for people, and its facts.

The words are server, studio, no_model, host, waiting, called, joined, reloaded and ended; and of a job taken, done, failed,
dead and cancelled.
"""

# What a worker logs of a job, and the word for it. The readable form has the lines of the log itself.
_JOB_STEPS = {
    "took a message": "taken",
    "message done": "done",
    "processing failed": "failed",
    "message dead-lettered": "dead",
    "message was cancelled": "cancelled",
}
_JOB_FACTS = ("identity", "room", "path", "queue", "message_id", "attempt", "seconds", "error")


@dataclass(frozen=True, slots=True)
class RunTimes:
    """How long a run waits, in seconds.

    `discover`: until the program describes itself. `join`: until an agent has joined, before that is logged. `call_again`:
    between repeated calls. `stop_margin`: see STOP_MARGIN. `look_at_sources`: between looks for changed files.
    """

    discover: float = 30.0
    join: float = 60.0
    call_again: float = 3600.0
    stop_margin: float = STOP_MARGIN
    look_at_sources: float = 0.5


async def run_service(
    command: str,
    *,
    room: str,
    progress: Progress,
    reload: bool = False,
    shows_jobs: bool = False,
    port: int = 0,
    links: bool = False,
    times: RunTimes | None = None,
) -> int:
    """Run the program until it ends or a signal stops it; return its exit code.

    That is 0 when a signal stopped it in order, and 1 when it ended in order before it served a path.

    `port` is where the program's host listens, for one that sets its port itself; 0: on a free port, which it is told.
    With `links` that host dials in to the room server, which calls its agents into the room over the link.
    With `shows_jobs` the progress has the steps of its workers' jobs too, and its log is JSON.
    With `reload` it is drained and started again when a Python file in its folder changes; then only a signal ends the run.
    Raises SettingsError when it cannot be run, and CallRefusedError when it refuses a call.
    """
    times = times or RunTimes()
    check_room_name(room)
    settings = read_settings()
    arguments = arguments_of(command)
    api_key = api_key_of(settings)
    async with (
        stop_signals() as signals,
        aiohttp.ClientSession() as session,
        _room_server(settings, session, progress, links=links) as is_embedded,
    ):
        secret = settings.webhook_secret
        calls = RoomCalls(
            session,
            api_url=settings.api_url,
            room=room,
            api_key=api_key,
            webhook_secret=secret.get_secret_value() if secret is not None else None,
        )
        if not is_embedded:
            await _tell_without_models(calls, settings.api_url, progress)
        folder = Path(arguments[1]).parent
        sources = SourceWatch(folder, interval=times.look_at_sources) if reload else None
        on_record = functools.partial(_show_job, progress) if shows_jobs else None
        changed: list[str] | None = None
        while True:
            linked = _linked(settings, room, api_key) if links else {}
            async with _started(arguments, settings, times, room, on_record, port, linked) as (program, host_url):
                host = HostApi(session, host_url)
                run = _Run(settings, times, program, host, calls, room, progress, is_linked=links)
                work = run.until_ended(changed) if sources is None else run.until_changed(sources, signals, changed)
                outcome = await first_of(work, _stop(signals, program))
                changed = outcome.result if isinstance(outcome, Won) else None
                if changed is not None:
                    # A second signal skips the wait; leaving the block then sends the program its second signal.
                    await first_of(program.end(), signals.wait_forced())
            if changed is None or await _is_stop_requested(signals):
                if isinstance(outcome, Won) and sources is None and not run.is_described and not program.exit_code:
                    progress("ended", run.ending, {"reason": run.ending})
                    return 1  # the program is content, but nothing ran
                return program.exit_code


@asynccontextmanager
async def _started(
    arguments: list[str],
    settings: Settings,
    times: RunTimes,
    room: str,
    on_record: Callable[[dict[str, Any]], None] | None,
    wanted_port: int,
    linked: dict[str, str],
) -> AsyncIterator[tuple[RunningProgram, str]]:
    """Start the program on this port (0: a free one); yield it and the URL of its host."""
    with reserved_port(port=wanted_port) as port:
        variables = {
            "MESHHOST_PORT": str(port),
            "MESHHOST_HOST": "127.0.0.1",
            "MESHHOST_API_URL": settings.api_url,
            **linked,
        }
        stop_seconds = settings.drain_seconds + times.stop_margin
        url = f"http://127.0.0.1:{port}"
        async with running_program(
            arguments, variables=variables, stop_seconds=stop_seconds, on_record=on_record
        ) as program:
            with announced(settings.config_dir, url, room=room):
                yield program, url


def _linked(settings: Settings, room: str, api_key: str) -> dict[str, str]:
    """The variables that let the program's host dial in for this room."""
    return {
        "MESHHOST_ROOM_SERVER": settings.api_url,
        "MESHHOST_API_KEY": api_key,
        "MESHHOST_LINK_ROOMS": room,
    }


def _show_job(progress: Progress, record: dict[str, Any]) -> None:
    """Tell the step of a job that a record of the program's log is about, if it is about one."""
    text, is_ours = str(record.get("message")), str(record.get("logger")).startswith("meshhost.")
    if is_ours and (step := _JOB_STEPS.get(text)) is not None:
        progress(step, text, {name: record[name] for name in _JOB_FACTS if name in record})


class _Run:
    """One run of the program, from its start to its end."""

    def __init__(
        self,
        settings: Settings,
        times: RunTimes,
        program: RunningProgram,
        host: HostApi,
        calls: RoomCalls,
        room: str,
        progress: Progress,
        *,
        is_linked: bool = False,
    ) -> None:
        self._is_linked = is_linked
        self._settings = settings
        self._times = times
        self._program = program
        self._host = host
        self._calls = calls
        self._room = room
        self._progress = progress
        self.is_described = False

    @property
    def ending(self) -> str:
        """How the program ended, for people."""
        text = f"the program ended with exit code {self._program.exit_code}"
        hint = "before it served a path: does it end with asyncio.run(host.run())?"
        return text if self.is_described else f"{text} {hint}"

    async def until_ended(self, changed: list[str] | None) -> list[str] | None:
        """Keep the program's agents called into the room; return None when the program ends.

        `changed` are the files for which it was started again, if it was.
        """
        await first_of(self._keep_called(changed), self._program.wait())
        return None

    async def until_changed(
        self, sources: SourceWatch, signals: StopSignals, changed: list[str] | None
    ) -> list[str] | None:
        """As `until_ended`, but wait for a change of the sources also after the program ended; returns the changed files."""
        outcome = await first_of(sources.changed(), self._run_and_report(signals, changed))
        return outcome.result if isinstance(outcome, Won) else None

    async def _run_and_report(self, signals: StopSignals, changed: list[str] | None) -> None:
        try:
            await self.until_ended(changed)
            text = self.ending
        except (CallRefusedError, SettingsError) as error:
            text = str(error)
        if not await _is_stop_requested(signals):
            self._progress("ended", f"{text}; waiting for a change of its files", {"reason": text})
        # Wait until a change or a signal wins the race.
        await asyncio.get_running_loop().create_future()

    async def _keep_called(self, changed: list[str] | None) -> None:
        endpoints = await self._discover()
        self.is_described = True
        self._progress("host", f"service host listens at {self._host.url}", {"url": self._host.url})
        await self._wait_ready()
        what = "over its link the host offers" if self._is_linked else "called"
        for endpoint in endpoints:
            if not self._is_linked:
                await self._calls.call(self._host.url, endpoint)
            self._progress(
                "called",
                f"{what} {endpoint.path} into room {self._room} as {endpoint.identity}",
                {"path": endpoint.path, "identity": endpoint.identity, "room": self._room},
            )
        if changed is not None:
            self._progress("reloaded", f"reloaded after a change of {', '.join(changed)}", {"files": changed})
        for endpoint in endpoints:
            await self._wait_joined(endpoint)
        if self._is_linked:
            # The room server keeps the agents called; this ends with the program.
            await asyncio.get_running_loop().create_future()
        while True:
            # A repeated call starts no second agent; it brings a fresh token before the first one expires.
            await asyncio.sleep(self._times.call_again)
            for endpoint in endpoints:
                try:
                    await self._calls.call(self._host.url, endpoint)
                except CallRefusedError as error:
                    logger.warning("calling again failed", extra={"path": endpoint.path, "reason": str(error)})

    async def _discover(self) -> list[Endpoint]:
        seconds = self._times.discover
        try:
            async with asyncio.timeout(seconds):
                endpoints, drain_seconds = await self._host.described()
        except TimeoutError:
            raise SettingsError(
                f"the program did not serve on MESHHOST_PORT within {seconds:g} s: does it run a ServiceHost? "
                "does it set a port itself, as ServiceHost(port=7001)? then pass --port 7001"
            ) from None
        # The code of the program may allow itself, or one of its paths, more time than the environment does.
        stop_seconds = (drain_seconds or 0.0) + self._times.stop_margin
        self._program.stop_seconds = max(self._program.stop_seconds, stop_seconds)
        return endpoints

    async def _wait_ready(self) -> None:
        seconds, missing, reported = self._settings.start_seconds, await self._host.missing(), list[str]()
        try:
            async with asyncio.timeout(seconds):
                while missing:
                    if missing != reported:
                        reported = missing
                        text = f"the host is not ready: {'; '.join(reported)}"
                        self._progress("waiting", text, {"reasons": reported})
                    await asyncio.sleep(POLL_SECONDS)
                    missing = await self._host.missing()
        except TimeoutError:
            raise SettingsError(f"the host was not ready within {seconds:g} s: {'; '.join(missing)}") from None

    async def _wait_joined(self, endpoint: Endpoint) -> None:
        fields = {"identity": endpoint.identity, "room": self._room}
        try:
            async with asyncio.timeout(self._times.join):
                while endpoint.identity not in await self._calls.present():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            reasons = await self._host.not_ready()
            logger.warning("agent did not join in time; the host keeps trying", extra={**fields, "not_ready": reasons})
            return
        # That it is there is all that the room server knows. Its own start may still go on, or fail.
        text = f"{endpoint.identity} joined room {self._room}: it is connected (`meshhost host ps` shows its state)"
        self._progress("joined", text, fields)


@asynccontextmanager
async def _room_server(
    settings: Settings, session: aiohttp.ClientSession, progress: Progress, *, links: bool
) -> AsyncIterator[bool]:
    """Use the room server at MESHHOST_API_URL, or start one in this process when none answers there: then yield True.

    Raises SettingsError.
    """
    base = http_url(settings.api_url)
    if await _answers(session, f"{base}/livez"):
        progress("server", f"room server ready at {base}", {"url": base, "embedded": False})
        yield False
        return
    parts = urlsplit(base)
    if not is_loopback(parts.hostname) or parts.scheme != "http":
        raise SettingsError(f"cannot reach the room server at {base}: is MESHHOST_API_URL right?")
    options = ServerOptions(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 80,
        data_dir=settings.data_dir,
        database_url=settings.database_url,
        operator_key=find_operator_key(settings),
        links=links,
    )
    async with open_room_server(options) as server:
        fields = {"url": server.url, "embedded": True, "data_dir": str(settings.data_dir)}
        text = f"no room server answered at {base}: started one in this process (data in {settings.data_dir})"
        progress("server", text, fields)
        link = server.studio_link(parse_api_key(api_key_of(settings)))
        progress("studio", f"Studio (the link works once): {link}", {"url": link})
        if (missing := missing_model(settings)) is not None:
            progress("no_model", missing, {"url": server.url})
        yield True


async def _tell_without_models(calls: RoomCalls, api_url: str, progress: Progress) -> None:
    if await calls.models() == []:
        url = http_url(api_url)
        text = f"agents that use a model will fail: the room server at {url} can name none; its log says why"
        progress("no_model", text, {"url": url})


async def _stop(signals: StopSignals, program: RunningProgram) -> None:
    """Wait for a signal, pass it on, and return when the program has ended; a second signal is passed on too."""
    await signals.wait()
    program.terminate()
    if isinstance(await first_of(program.wait(), signals.wait_forced()), Stopped):
        program.terminate()
        await program.wait()


async def _is_stop_requested(signals: StopSignals) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await signals.wait()
            return True
    return False


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as response:
            return response.status == 200
    return False
