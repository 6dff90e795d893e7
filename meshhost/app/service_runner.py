"""Runs a program with a ServiceHost for one room, as `meshhost service run` does: start it, discover its paths, call them.

With no room server at MESHHOST_API_URL and that URL on this machine, a room server is started in this process.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.app.project import api_key_of
from meshhost.app.source_watch import SourceWatch
from meshhost.errors import CallRefusedError, SettingsError
from meshhost.hosting.calls.specs import WELL_KNOWN_PATHS, drain_seconds_of
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import parse_api_key
from meshhost.identity.tenant import check_room_name
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.settings import Settings, read_settings
from meshhost.signals import StopSignals, stop_signals
from meshhost.tasks import Stopped, Won, first_of

__all__ = ["Progress", "run_service"]

logger = logging.getLogger(__name__)

DISCOVER_TIMEOUT = 30.0
JOIN_TIMEOUT = 60.0
CALL_AGAIN_SECONDS = 3600.0
# The program drains within the time that its description tells and aborts within 5 s more; this is for what lies around that.
STOP_MARGIN = 15.0
_LOOK_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

# Told of each step: a word for programs (server, host, waiting, called, joined, reloaded, ended), a sentence for people, and
# its facts.
Progress = Callable[[str, str, dict[str, Any]], None]


@dataclass(slots=True)
class _Program:
    """The program that runs, and how many seconds it may take to drain: what it tells once it is up."""

    process: asyncio.subprocess.Process
    drain_seconds: float

    async def end(self) -> None:
        """Ask it to stop; return when it is gone. It is killed when it takes longer than it may."""
        await _end(self.process, self.drain_seconds + STOP_MARGIN)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    path: str
    identity: str
    scope: ApiScope


async def run_service(command: str, *, room: str, progress: Progress, reload: bool = False) -> int:
    """Run the program until it ends or a signal stops it; returns its exit code (0 when a signal stopped it in order).

    With `reload` it is drained and started again when a Python file of its folder changes; only a signal ends it then.
    Raises SettingsError when it cannot be run, and CallRefusedError when it refuses the call.
    """
    check_room_name(room)
    settings = read_settings()
    arguments = _arguments(command)
    api_key = api_key_of(settings)
    async with stop_signals() as signals, aiohttp.ClientSession() as session, _room_server(settings, session, progress):
        sources = SourceWatch(Path(arguments[1]).parent) if reload else None
        changed: list[str] | None = None
        while True:
            port = _free_port()
            async with _program(arguments, settings, port) as program:
                process = program.process
                runner = _Runner(
                    settings, session, program, port, room=room, api_key=api_key, progress=progress, changed=changed
                )
                run = runner.run() if sources is None else runner.run_until_change(sources, signals)
                outcome = await first_of(run, _stop(signals, process))
                changed = outcome.result if isinstance(outcome, Won) else None
                if changed is not None:
                    # A second signal does not wait: leaving the block tells the program so.
                    await first_of(program.end(), signals.wait_forced())
            if changed is None or await _is_asked(signals):
                return _exit_code(process.returncode)


class _Runner:
    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        program: _Program,
        port: int,
        *,
        room: str,
        api_key: str,
        progress: Progress,
        changed: list[str] | None = None,
    ) -> None:
        self._changed = changed
        self._settings = settings
        self._session = session
        self._program = program
        self._process = program.process
        self._host_url = f"http://127.0.0.1:{port}"
        self._room = room
        self._api_key = api_key
        self._progress = progress
        self._sender = WebhookSender(session)

    async def run(self) -> list[str] | None:
        """Call the program's agents into the room, and return None when it ends."""
        await first_of(self._keep_called(), self._process.wait())
        return None

    async def run_until_change(self, sources: SourceWatch, signals: StopSignals) -> list[str] | None:
        """The same until a source file changes, also when the program fails meanwhile. Returns the files."""
        outcome = await first_of(sources.changed(), self._run_and_tell(signals))
        return outcome.result if isinstance(outcome, Won) else None

    async def _run_and_tell(self, signals: StopSignals) -> None:
        try:
            await self.run()
            text = f"the program ended with exit code {_exit_code(self._process.returncode)}"
        except (CallRefusedError, SettingsError) as error:
            text = str(error)
        if not await _is_asked(signals):
            self._progress("ended", f"{text}; waiting for a change of its files", {"reason": text})
        # Until a change, or a signal, ends this.
        await asyncio.get_running_loop().create_future()

    async def _keep_called(self) -> None:
        endpoints = await self._discover()
        self._progress("host", f"service host up at {self._host_url}", {"url": self._host_url})
        await self._wait_ready()
        for endpoint in endpoints:
            await self._call(endpoint)
            self._progress(
                "called",
                f"called {endpoint.path} into room {self._room} as {endpoint.identity}",
                {"path": endpoint.path, "identity": endpoint.identity, "room": self._room},
            )
        if self._changed is not None:
            self._progress(
                "reloaded", f"reloaded after a change of {', '.join(self._changed)}", {"files": self._changed}
            )
        for endpoint in endpoints:
            await self._wait_joined(endpoint)
        while True:
            # A repeated call starts nobody twice; it brings a fresh token before the old one expires.
            await asyncio.sleep(CALL_AGAIN_SECONDS)
            for endpoint in endpoints:
                try:
                    await self._call(endpoint)
                except CallRefusedError as error:
                    logger.warning("calling again failed", extra={"path": endpoint.path, "reason": str(error)})

    async def _discover(self) -> list[_Endpoint]:
        url = self._host_url + WELL_KNOWN_PATHS[0]
        try:
            async with asyncio.timeout(DISCOVER_TIMEOUT):
                while (description := await self._ask(url)) is None:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise SettingsError(
                f"the program did not serve on MESHHOST_PORT within {DISCOVER_TIMEOUT:g} s: does it run a ServiceHost?"
            ) from None
        # Told by the program: its code may give it, or one of its paths, more time than the environment does.
        self._program.drain_seconds = max(self._program.drain_seconds, drain_seconds_of(description) or 0.0)
        return _endpoints(description)

    async def _wait_ready(self) -> None:
        seconds, missing, told = self._settings.start_seconds, await self._reasons("missing"), list[str]()
        try:
            async with asyncio.timeout(seconds):
                while missing:
                    if missing != told:
                        told = missing
                        self._progress("waiting", f"the host is not ready: {'; '.join(told)}", {"reasons": told})
                    await asyncio.sleep(_LOOK_SECONDS)
                    missing = await self._reasons("missing")
        except TimeoutError:
            raise SettingsError(f"the host was not ready within {seconds:g} s: {'; '.join(missing)}") from None

    async def _reasons(self, member: str) -> list[str]:
        """Why /readyz says that the host is not ready; empty when it is, or does not tell."""
        answer = await self._ask(f"{self._host_url}/readyz", statuses=(200, 503))
        reasons = answer.get(member) if isinstance(answer, dict) else None
        return [str(reason) for reason in reasons] if isinstance(reasons, list) else []

    async def _ask(self, url: str, headers: dict[str, str] | None = None, *, statuses: Sequence[int] = (200,)) -> Any:
        with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError):
            async with self._session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status in statuses:
                    return await response.json()
        return None

    async def _call(self, endpoint: _Endpoint) -> None:
        token = ParticipantToken(
            name=endpoint.identity,
            grants=[
                ParticipantGrant(name="room", scope=self._room),
                ParticipantGrant(name="role", scope="agent"),
                ParticipantGrant(name="api", scope=endpoint.scope),
            ],
        )
        secret = self._settings.webhook_secret
        data = {
            "room_name": self._room,
            "room_url": f"{_websocket_base(self._settings.api_url)}/rooms/{self._room}",
            "token": token.to_jwt(api_key=self._api_key),
            "arguments": {},
        }
        await self._sender.send(
            self._host_url + endpoint.path,
            "room.call",
            data,
            secret=secret.get_secret_value() if secret is not None else None,
        )

    async def _wait_joined(self, endpoint: _Endpoint) -> None:
        fields = {"identity": endpoint.identity, "room": self._room}
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                while endpoint.identity not in await self._present():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            reasons = await self._reasons("reasons")
            logger.warning(
                "agent did not join in time; the host goes on trying", extra={**fields, "not_ready": reasons}
            )
            return
        self._progress("joined", f"{endpoint.identity} joined room {self._room}", fields)

    async def _present(self) -> set[str]:
        base = _http_base(self._settings.api_url)
        project = parse_api_key(self._api_key).project_id
        url = f"{base}/accounts/projects/{project}/sessions/active"
        answer = await self._ask(url, {"Authorization": f"Bearer {self._api_key}"})
        sessions = answer.get("sessions", []) if isinstance(answer, dict) else []
        return {
            participant["name"]
            for session in sessions
            if session["room_name"] == self._room
            for participant in session["participants"]
        }


@asynccontextmanager
async def _room_server(settings: Settings, session: aiohttp.ClientSession, progress: Progress) -> AsyncIterator[None]:
    base = _http_base(settings.api_url)
    if await _answers(session, f"{base}/livez"):
        progress("server", f"room server up at {base}", {"url": base, "embedded": False})
        yield
        return
    parts = urlsplit(base)
    if parts.hostname not in _LOOPBACK or parts.scheme != "http":
        raise SettingsError(f"cannot reach the room server at {base}: is MESHHOST_API_URL right?")
    options = ServerOptions(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 80,
        data_dir=settings.data_dir,
        database_url=settings.database_url,
    )
    async with open_room_server(options) as server:
        fields = {"url": server.url, "embedded": True, "data_dir": str(settings.data_dir)}
        progress("server", f"no room server at {base}: started one here (data in {settings.data_dir})", fields)
        yield


@asynccontextmanager
async def _program(arguments: list[str], settings: Settings, port: int) -> AsyncIterator[_Program]:
    """The program as a child of its own session, which ends with the block and with this process."""
    environment = {**os.environ, "MESHHOST_PORT": str(port), "MESHHOST_HOST": "127.0.0.1"}  # noqa: TID251 - handed on
    environment["MESHHOST_API_URL"] = settings.api_url
    process = await asyncio.create_subprocess_exec(
        *arguments, env=environment, start_new_session=True, preexec_fn=_die_with_parent
    )
    program = _Program(process, settings.drain_seconds)
    try:
        yield program
    finally:
        await program.end()


async def _stop(signals: StopSignals, process: asyncio.subprocess.Process) -> None:
    """Wait for a signal, pass it on, and return when the program has ended; a second one is passed on too."""
    await signals.wait()
    _signal(process, signal.SIGTERM)
    if isinstance(await first_of(process.wait(), signals.wait_forced()), Stopped):
        _signal(process, signal.SIGTERM)
        await process.wait()


async def _is_asked(signals: StopSignals) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await signals.wait()
            return True
    return False


async def _end(process: asyncio.subprocess.Process, timeout: float) -> None:
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        async with asyncio.timeout(timeout):
            await process.wait()
    except TimeoutError:
        logger.warning("the program did not stop in time and is killed", extra={"timeout": timeout})
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _exit_code(returned: int | None) -> int:
    # A program that a signal ended reports it as shells do.
    code = returned or 0
    return 128 - code if code < 0 else code


def _die_with_parent() -> None:
    # Linux only; elsewhere a program whose runner is killed has to be stopped by hand.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _arguments(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"cannot read the command {command!r}: {error}") from None
    if not words:
        raise SettingsError("expected a Python file to run, such as main.py")
    if not Path(words[0]).is_file():
        raise SettingsError(f"no file {words[0]!r}: expected a Python program with a ServiceHost")
    return [sys.executable, *words]


def _endpoints(description: Any) -> list[_Endpoint]:
    try:
        found = [
            _Endpoint(
                path=endpoint["path"],
                identity=endpoint["meshagent"]["identity"],
                scope=_scope(endpoint["meshagent"]["api"]),
            )
            for port in description["ports"]
            for endpoint in port["endpoints"]
            if endpoint["meshagent"] is not None
        ]
    except (KeyError, TypeError, ValueError):
        raise SettingsError("the program's service description is not one that meshhost reads") from None
    if not found:
        raise SettingsError("the program binds no path: decorate an agent class with @host.path(…)")
    return found


def _scope(described: Any) -> ApiScope:
    return ApiScope.agent_default() if described is None else ApiScope.model_validate(described)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=3)) as response:
            return response.status == 200
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _http_base(api_url: str) -> str:
    return api_url.replace("ws://", "http://", 1).replace("wss://", "https://", 1)


def _websocket_base(api_url: str) -> str:
    return api_url.replace("http://", "ws://", 1).replace("https://", "wss://", 1)
