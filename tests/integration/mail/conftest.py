"""What tests of mail need: a room server, an SMTP server that keeps what it takes, and mails to send."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from doubles.smtp_sink import SmtpSink

from meshhost.agents.mail import MailWorker, SmtpConfiguration
from meshhost.room.client import RoomClient
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import RunningServer, running_server

BOT = "bot@example.com"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def user(server: RunningServer) -> AsyncIterator[RoomClient]:
    async with server.client("room") as room:
        yield room


@pytest.fixture
async def sink() -> AsyncIterator[SmtpSink]:
    async with SmtpSink() as running:
        yield running


@pytest.fixture
def worker_for(sink: SmtpSink) -> Callable[..., MailWorker]:
    def make(llm: ScriptedLLM | None = None, **options: Any) -> MailWorker:
        smtp = SmtpConfiguration(hostname="127.0.0.1", port=sink.port, username="u", password="p")
        kind: type[MailWorker] = options.pop("kind", MailWorker)
        return kind(
            **{"name": "bot", "email_address": BOT, "smtp": smtp, "llm_adapter": llm or ScriptedLLM(default="Dear Ann")}
            | options
        )

    return make


@pytest.fixture
def working(server: RunningServer) -> Any:
    @asynccontextmanager
    async def run(worker: MailWorker, room: str = "room") -> AsyncIterator[RoomClient]:
        async with server.client(room, name=worker.name, role="agent") as client:
            await worker.start(room=client)
            try:
                yield client
            finally:
                await worker.stop()

    return run


@pytest.fixture
def written() -> Callable[..., dict[str, str]]:
    """`written(…)`: the message of a queue that holds a mail."""

    def make(body: str = "Hello", *, sender: str = "ann@example.org", to: str = BOT, **headers: str) -> dict[str, str]:
        mail = EmailMessage()
        mail["From"], mail["To"] = sender, to
        for name, value in {"Subject": "Question", "Message_ID": "<q1@example.org>", **headers}.items():
            mail[name.replace("_", "-")] = value
        mail.set_content(body)
        return {"base64": base64.b64encode(mail.as_bytes()).decode()}

    return make
