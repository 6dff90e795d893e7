"""Starts the processes that a benchmark needs, and ends each of them with it.

`running` is what everything else is made of: it ends its process when the block is left, whatever the reason. `room_server`
runs a whole room server, `figures_of` a program that prints its figures as JSON.
"""

import asyncio
import json
import os
import resource
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp

from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken

TERMINATE_SECONDS = 10.0


def raise_file_limit(files: int) -> int:
    """Raise the limit of open files of this process and of those that it starts; return what it is now."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = files if most == resource.RLIM_INFINITY else min(files, most)
    wanted = max(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


def free_port() -> int:
    """Return a port of this machine that nobody listens on now. Another program may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(
    *command: object, environment: Mapping[str, str | None] | None = None, **options: Any
) -> AsyncIterator[Process]:
    """A process, terminated when the block is left, and killed when that takes too long.

    `environment` is added to this process's; None unsets a variable. `options` are those of `create_subprocess_exec`.
    """
    merged = {**os.environ, **(environment or {})}
    present = {name: value for name, value in merged.items() if value is not None}
    process = await asyncio.create_subprocess_exec(*map(str, command), env=present, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            try:
                process.terminate()
                async with asyncio.timeout(TERMINATE_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()


async def figures_of(*command: object, seconds: float = 300, **options: Any) -> dict[str, float]:
    """Run a program and return the JSON of the last line that it prints; `options` are those of `running`.

    Raises RuntimeError when it fails, TimeoutError when it takes longer than `seconds`.
    """
    async with asyncio.timeout(seconds), running(*command, stdout=PIPE, stderr=PIPE, **options) as process:
        output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{Path(str(command[1])).name} failed: {errors.decode(errors='replace')[-2000:]}")
    return cast(dict[str, float], json.loads(output.decode().splitlines()[-1]))


async def wait_answers(url: str, *, seconds: float = 60) -> None:
    """Return when a GET of this URL is answered with 200. Raises TimeoutError."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(seconds):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)


@asynccontextmanager
async def room_server(
    home: Path,
    *,
    python: str = sys.executable,
    environment: Mapping[str, str | None] | None = None,
    config: Path | None = None,
    started: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[tuple[str, str]]:
    """Our room server on SQLite with `synchronous=FULL`, run by this interpreter; gives its URL and an API key.

    `config` is the server's file; `started` is told the process id.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings: dict[str, str | None] = {
        **(environment or {}),
        "MESHHOST_CONFIG_DIR": str(home / "config"),
        "MESHHOST_API_URL": url,
        "MESHHOST_API_KEY": None,
    }
    # In `home`, so that the interpreter does not find the `meshhost` of the folder in which the benchmark was started.
    options: dict[str, Any] = {"environment": settings, "cwd": home}
    meshhost = [python, "-m", "meshhost.cli.main"]
    async with running(*meshhost, "setup", "--json", stdout=PIPE, **options) as setup:
        output, _ = await setup.communicate()
    serve = [*meshhost, "room", "serve", "--port", port, "--data-dir", home / "data"]
    serve += [] if config is None else ["--config", config]
    async with running(*serve, stdout=DEVNULL, stderr=DEVNULL, **options) as server:
        started(server.pid)
        await wait_answers(f"{url}/readyz")
        yield url, json.loads(output)["api_key"]


def room_access(url: str, api_key: str, room: str) -> tuple[str, str]:
    """Return the WebSocket URL of a room, and a token that may do there what agents may."""
    token = ParticipantToken(
        name="bench",
        grants=[
            ParticipantGrant(name="room", scope=room),
            ParticipantGrant(name="role", scope="agent"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    ).to_jwt(api_key=api_key)
    return f"ws{url.removeprefix('http')}/rooms/{room}", token
