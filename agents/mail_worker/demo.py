"""`make demo-mail`: a mail goes in, and the answer comes out, written by an agent.

Shows: the whole way of a mail, with every part real and in processes of their own: the room server with its SMTP ports, a
mailbox, the durable queue, the agent in `main.py` beside this file, the model, and the outbox. Only the rest of the world is
played: a mail server in this program takes what the room server sends on.

Run it:  make demo-mail

You see what happens to the mail, and then the answer as its receiver gets it. With OPENAI_API_KEY or OPENAI_BASE_URL set, that
provider writes it; otherwise the small local model does, within about a minute. All data is in a temporary directory.
"""

import asyncio
import contextlib
import email
import email.policy
import json
import os
import smtplib
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.controller import Controller

ROOM, QUEUE = "demo", "email"
BOT, ANN = "bot@example.com", "ann@example.org"
START_SECONDS, WORK_SECONDS = 60, 240
HERE = Path(__file__).parent


def say(text: str) -> None:
    print(text, flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """The mail server of everybody else: keeps what it is sent."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"


def environment(directory: Path, ports: dict[str, int]) -> dict[str, str]:
    """Return the environment of all processes, without the user's own settings: the demo must not act on their rooms."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MESHHOST_", "MESHAGENT_", "SMTP_"))
    }
    return kept | {
        "MESHHOST_API_URL": f"http://127.0.0.1:{ports['rooms']}",
        "MESHHOST_CONFIG_DIR": str(directory / "config"),
        "MESHHOST_DATA_DIR": str(directory / "data"),
        "MESHHOST_LOG_LEVEL": "WARNING",
        "SMTP_HOSTNAME": "127.0.0.1",
        "SMTP_PORT": str(ports["submission"]),
        "MAIL_ADDRESS": BOT,
        "MAIL_QUEUE": QUEUE,
        "MAIL_WHITELIST": "example.org",
    }


def configuration(directory: Path, ports: dict[str, int]) -> Path:
    path = directory / "meshhost.toml"
    path.write_text(
        f"""
[mail]
listen = "127.0.0.1:{ports["smtp"]}"
submission = "127.0.0.1:{ports["submission"]}"
hostname = "mail.example.com"
domains = ["example.com"]
relay = {{ host = "127.0.0.1", port = {ports["world"]}, tls = "never" }}
"""
    )
    return path


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
async def running(env: dict[str, str], *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshhost.cli.main", *arguments), env=env, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def until_joined(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(START_SECONDS):
        async for line in process.stdout:
            step = json.loads(line)
            say(f"  ✓ {step['text']}")
            if step["step"] == "joined":
                return
    raise SystemExit("the service ended before its agent joined")


def send(port: int, subject: str, body: str, **headers: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = f"Ann <{ANN}>", BOT, subject
    mail["Message-ID"] = f"<{subject.split()[0].lower()}@example.org>"
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content(body)
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.send_message(mail)
    return mail


async def shown(env: dict[str, str]) -> None:
    deliveries = json.loads(await meshhost("mailbox", "show", BOT, "--json", env=env))["deliveries"]
    for each in reversed(deliveries):
        say(f"  ✓ {each['bytes']} bytes from {each['from']}: message {each['message_id']} of queue {QUEUE}, on disk")


async def wait_for_answer(world: World) -> EmailMessage:
    began = time.monotonic()
    async with asyncio.timeout(WORK_SECONDS):
        while not world.mails:
            await asyncio.sleep(1)
            if int(time.monotonic() - began) % 5 == 0:
                say(f"  … the agent is writing, {time.monotonic() - began:.0f} s")
    return world.mails[0]


async def outcome_of(message_id: str, env: dict[str, str]) -> str:
    """Return what the agent did with a message of the queue, once it has."""
    async with asyncio.timeout(WORK_SECONDS):
        while True:
            command = ("queue", "get", message_id, "--room", ROOM, "--queue", QUEUE, "--json")
            record = json.loads(await meshhost(*command, env=env))
            if record["state"] == "done":
                outcome = record["result"]
                return "answered" if outcome["answered"] else f"not answered, since it is {outcome['reason']}"
            await asyncio.sleep(1)


def show_answer(answer: EmailMessage) -> None:
    for name in ("From", "To", "Subject", "In-Reply-To", "Auto-Submitted"):
        say(f"    {name}: {answer[name]}")
    say("")
    for line in answer.get_body(("plain",)).get_content().strip().splitlines():
        say(f"    {line}")


async def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="meshhost-demo-mail-") as place:
        directory, world = Path(place), World()
        ports = {name: free_port() for name in ("rooms", "smtp", "submission", "world")}
        env = environment(directory, ports)
        is_offline = not (env.get("OPENAI_API_KEY") or env.get("OPENAI_BASE_URL"))
        outside = Controller(world, hostname="127.0.0.1", port=ports["world"])
        outside.start()
        try:
            await meshhost("setup", "--json", env=env)
            serve = ("room", "serve", "--port", str(ports["rooms"]), "--config", str(configuration(directory, ports)))
            service = ("service", "run", str(HERE / "main.py"), "--room", ROOM, "--json")
            say("Room server with SMTP, service host and agent:")
            async with running(env, *serve, "--json") as server:
                await asyncio.wait_for(server.stdout.readline(), START_SECONDS)
                async with running(env, *service) as hosted:
                    await until_joined(hosted)
                    said = await meshhost("mailbox", "create", BOT, "--room", ROOM, "--queue", QUEUE, env=env)
                    say(f"  ✓ {said.strip()}")
                    say("Two mails by SMTP: a question of Ann, and an automatic notice of her absence:")
                    await asyncio.to_thread(
                        send, ports["smtp"], "Poem please", "Could you write two lines about the sea?"
                    )
                    await asyncio.to_thread(
                        send, ports["smtp"], "Away until Monday", "I am away.", Auto_Submitted="auto-replied"
                    )
                    await shown(env)
                    model = (
                        "the small local model (SmolLM2, 135M; it is no great poet)" if is_offline else "your provider"
                    )
                    say(f"The agent answers; the model is {model}:")
                    answer = await wait_for_answer(world)
                    say("  ✓ the answer left through the outbox and the submission port; Ann's server has it:\n")
                    show_answer(answer)
                    say(f"\n  ✓ the notice: {await outcome_of('2', env)}")
        finally:
            outside.stop()
    say(f"\nDone in {time.monotonic() - began:.0f} s; nothing is left running.")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except TimeoutError:
        raise SystemExit("the demo did not finish in time; MESHHOST_LOG_LEVEL=INFO shows more") from None
