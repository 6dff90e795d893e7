"""A real Postfix delivers mail to us and takes ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from doubles.postfix import Postfix, running_postfix
from doubles.smtp_sink import SmtpSink

from meshhost.agents.mail import MailWorker, SmtpConfiguration
from meshhost.app.config_file import ServerFile
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import RunningServer, running_server
from meshhost.triggers.mailboxes import Mailboxes, MailboxSpec

BOT = "bot@example.com"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Post:
    """A Postfix between our server (example.com) and the rest of the world (example.org), which is a sink."""

    def __init__(self, postfix: Postfix, server: RunningServer) -> None:
        self.postfix = postfix
        self.server = server

    async def send(self, content: str, to: str = BOT, sender: str = "ann@example.org") -> None:
        """Give Postfix a mail, as somebody's mail program does."""
        await aiosmtplib.send(
            content.replace("\n", "\r\n").encode(),
            sender=sender,
            recipients=[to],
            hostname="127.0.0.1",
            port=self.postfix.port,
            start_tls=False,
        )

    async def until_logged(self, text: str) -> None:
        async with asyncio.timeout(60):
            while text not in self.postfix.log:  # noqa: ASYNC110 - it is another program's file
                await asyncio.sleep(0.1)


@pytest.fixture(params=["smtp", "lmtp"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def post(tmp_path: Path, sink: SmtpSink, protocol: str) -> AsyncIterator[Post]:
    file = ServerFile.model_validate({"mail": {"listen": "127.0.0.1:0", "protocol": protocol, "max_unknown": 100}})
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(tmp_path / "data", file=file))
        boxes = Mailboxes(server.server.engines.triggers, server.server.engines.queues)
        room = RoomKey(TenantId(server.key.project_id), "room")
        await boxes.create(room, BOT, MailboxSpec(queue="email"))
        transport = f"{protocol}:inet:127.0.0.1" if protocol == "lmtp" else "smtp:[127.0.0.1]"
        routes = {
            "example.com": f"{transport}:{server.server.parts.mail.port}",
            "example.org": f"smtp:[127.0.0.1]:{sink.port}",
        }
        yield Post(await stack.enter_async_context(running_postfix(routes)), server)


QUESTION = """From: Ann <ann@example.org>
To: bot@example.com
Message-ID: <q@example.org>
Subject: A question

Are you there?
"""


async def test_a_mail_comes_by_postfix_and_the_answer_leaves_by_it(post: Post, sink: SmtpSink) -> None:
    smtp = SmtpConfiguration(hostname="127.0.0.1", port=post.postfix.port, tls="never")
    worker = MailWorker(name="bot", email_address=BOT, smtp=smtp, llm_adapter=ScriptedLLM(default="I am."))
    async with post.server.client("room", name="bot", role="agent") as room:
        await worker.start(room=room)
        await post.send(QUESTION)
        taken = await sink.received(1, seconds=60)
        await worker.stop()
    assert (taken.mail_from, taken.recipients) == (BOT, ("ann@example.org",))
    assert (taken.mail.text, taken.mail.in_reply_to, taken.mail.subject) == (
        "I am.",
        "<q@example.org>",
        "RE: A question",
    )
    assert any("postfix.example" in each for each in taken.mail.all("received"))


async def test_postfix_keeps_what_we_cannot_store_and_brings_it_again(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = post.server.server.engines.queues
    send, tries = queues.send, asyncio.Event()

    async def fail_at_first(*arguments: Any, **named: Any) -> Any:
        if not tries.is_set():
            tries.set()
            raise OSError("the disk is gone")
        return await send(*arguments, **named)

    monkeypatch.setattr(queues, "send", fail_at_first)
    await post.send(QUESTION)
    await post.until_logged("451 4.3.0 not stored")
    await post.until_logged("250 2.0.0 stored as message")
    async with post.server.client("room") as room:
        assert len([each async for each in room.queues.find("email")]) == 1


async def test_postfix_tells_the_sender_of_an_unknown_mailbox_and_the_bounce_is_not_answered(
    post: Post, sink: SmtpSink
) -> None:
    await post.send(QUESTION, to="nobody@example.com")
    bounce = await sink.received(1, seconds=60)
    assert bounce.mail_from == ""
    assert bounce.mail.is_report
    assert dict(bounce.mail.report)["status"] == "5.1.1"

    # A bounce for the agent itself: Postfix brings it with an empty return path.
    llm = ScriptedLLM()
    smtp = SmtpConfiguration(hostname="127.0.0.1", port=post.postfix.port, tls="never")
    worker = MailWorker(name="bot", email_address=BOT, smtp=smtp, llm_adapter=llm)
    async with post.server.client("room", name="bot", role="agent") as room, post.server.client("room") as user:
        await worker.start(room=room)
        await post.send(QUESTION, to="nobody@example.com", sender=BOT)
        found = await _done(user)
        await worker.stop()
    assert found == {"answered": False, "reason": "bounce"}
    assert llm.calls == []


async def _done(room: Any) -> Any:
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.1)
            ids = [each.id async for each in room.queues.find("email", states=["done"])]
            if ids:
                return (await room.queues.get("email", ids[0])).result
