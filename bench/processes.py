"""Processes of a benchmark: none of them outlives it."""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp

from meshhost.identity.grants import ApiScope
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken

TERMINATE_SECONDS = 10.0


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(
    *command: object, environment: Mapping[str, str | None] | None = None, **options: Any
) -> AsyncIterator[Process]:
    """A process, with `options` for its streams; None unsets a variable. Ended on leaving, and killed when that takes long."""
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


async def figures_of(*command: object, seconds: float = 300) -> dict[str, float]:
    """The JSON of the last line that a program prints. Raises RuntimeError when it fails."""
    async with asyncio.timeout(seconds), running(*command, stdout=PIPE, stderr=PIPE) as process:
        output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{Path(str(command[1])).name} failed: {errors.decode(errors='replace')[-2000:]}")
    return cast(dict[str, float], json.loads(output.decode().splitlines()[-1]))


async def wait_answers(url: str, *, seconds: float = 60) -> None:
    """Return when a GET is answered with 200."""
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
async def room_server(home: Path) -> AsyncIterator[tuple[str, str]]:
    """Our room server on SQLite with `synchronous=FULL`; gives its URL and an API key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment: dict[str, str | None] = {
        "MESHHOST_CONFIG_DIR": str(home / "config"),
        "MESHHOST_API_URL": url,
        "MESHHOST_API_KEY": None,
    }
    meshhost = [sys.executable, "-m", "meshhost.cli.main"]
    async with running(*meshhost, "setup", "--json", environment=environment, stdout=PIPE) as setup:
        output, _ = await setup.communicate()
    serve = [*meshhost, "room", "serve", "--port", port, "--data-dir", home / "data"]
    async with running(*serve, environment=environment, stderr=DEVNULL):
        await wait_answers(f"{url}/readyz")
        yield url, json.loads(output)["api_key"]


def room_access(url: str, api_key: str, room: str) -> tuple[str, str]:
    """The WebSocket URL of a room, and a token that may do there what agents may."""
    token = ParticipantToken(
        name="bench",
        grants=[
            ParticipantGrant(name="room", scope=room),
            ParticipantGrant(name="role", scope="agent"),
            ParticipantGrant(name="api", scope=ApiScope.agent_default()),
        ],
    ).to_jwt(api_key=api_key)
    return f"ws{url.removeprefix('http')}/rooms/{room}", token
