"""`make demo`: an instruction in a queue becomes a file in a room, written by an agent.

Shows: the whole path, with every part real and in processes of their own: room server, service host, durable queue, model and
storage. The agent is `main.py` beside this file.

Run it:  make demo

You see each step as it completes, then the poem that the agent wrote. With OPENAI_API_KEY or OPENAI_BASE_URL set, that provider
writes it; otherwise the small local model does, within about a minute. Data and configuration are in a temporary directory.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from meshhost.api import ApiScope, ParticipantGrant, ParticipantToken, RoomClient, WebSocketClientProtocol
from meshhost.api.helpers import websocket_room_url

ROOM, QUEUE, FILE = "demo", "jobs", "poem.txt"
INSTRUCTIONS = f"save a poem about ai to {FILE}"
START_SECONDS = 60
WORK_SECONDS = 240
HERE = Path(__file__).parent


def say(text: str) -> None:
    print(text, flush=True)


def clean_environment(directory: Path) -> dict[str, str]:
    """Return the environment of all processes, without the user's own settings: the demo must not act on their rooms."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESHHOST_", "MESHAGENT_"))}
    return kept | {
        "MESHHOST_API_URL": f"http://127.0.0.1:{free_port()}",
        "MESHHOST_CONFIG_DIR": str(directory / "config"),
        "MESHHOST_DATA_DIR": str(directory / "data"),
        "MESHHOST_LOG_LEVEL": "WARNING",
        "MESHHOST_WEBHOOK_SECRET": secrets.token_hex(32),
        "WORKER_QUEUE": QUEUE,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def meshhost(*arguments: str, env: dict[str, str]) -> str:
    """Run a meshhost command and return its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshhost.cli.main", *arguments, env=env, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"meshhost {arguments[0]} failed")
    return output.decode()


@contextlib.asynccontextmanager
async def service(env: dict[str, str]) -> AsyncIterator[None]:
    """Run `meshhost service run`: returns when its agent has joined the room, and stops it at the end of the block."""
    program = str(HERE / "main.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshhost.cli.main", "service", "run", program, "--room", ROOM, "--json"),
        env=env,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            async for line in process.stdout:
                step = json.loads(line)
                say(f"  ✓ {step['text']}")
                if step["step"] == "joined":
                    break
            else:
                raise SystemExit("the service ended before its agent joined")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def connect(env: dict[str, str], api_key: str) -> RoomClient:
    token = ParticipantToken(
        name="demo",
        grants=[
            ParticipantGrant(name="room", scope=ROOM),
            ParticipantGrant(name="api", scope=ApiScope.full()),
        ],
    ).to_jwt(api_key=api_key)
    url = websocket_room_url(room_name=ROOM, base_url=env["MESHHOST_API_URL"])
    return RoomClient(protocol=WebSocketClientProtocol(url=url, token=token))


async def wait_for_file(room: RoomClient, stored: asyncio.Event) -> None:
    """Show progress until the file is stored."""
    began = time.monotonic()
    live = sys.stdout.isatty()
    async with asyncio.timeout(WORK_SECONDS):
        while not stored.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2 if live else 2):
                    await stored.wait()
            text = f"  … the model is working, {time.monotonic() - began:.0f} s"
            print(f"\r{text}" if live else text, end="" if live else "\n", flush=True)
    if live:
        print()


async def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="meshhost-demo-") as directory:
        env = clean_environment(Path(directory))
        is_offline = not (env.get("OPENAI_API_KEY") or env.get("OPENAI_BASE_URL"))
        project = json.loads(await meshhost("setup", "--json", env=env))
        say("Room server, service host and agent:")
        async with service(env), connect(env, project["api_key"]) as room:
            stored = asyncio.Event()
            room.storage.on("file.updated", lambda path, participant_id: path == FILE and stored.set())
            message = json.dumps({"instructions": INSTRUCTIONS})
            say(f"The job: {message}")
            sent = await meshhost("queue", "send", "--room", ROOM, "--queue", QUEUE, "--json", message, env=env)
            say(f"  ✓ message {sent.strip()} is in the queue, on disk")
            model = "the small local model (SmolLM2, 135M; it is no great poet)" if is_offline else "your provider"
            say(f"  ✓ the worker receives it; the model is {model}")
            await wait_for_file(room, stored)
            say(f"  ✓ {FILE} is in the room's storage:\n")
            poem = (await room.storage.download(path=FILE)).data.decode()
            say("\n".join(f"    {line}" for line in poem.strip().splitlines()))
    say(f"\nDone in {time.monotonic() - began:.0f} s; nothing is left running.")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except TimeoutError:
        raise SystemExit("the demo did not finish in time; MESHHOST_LOG_LEVEL=INFO shows more") from None
