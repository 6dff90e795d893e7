"""An IMAP mailbox of a real Dovecot is polled into a queue: nothing is lost, nothing is marked before it is stored."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from doubles.dovecot import Dovecot, running_dovecot
from doubles.smtp_sink import SmtpSink

from meshhost.agents.mail import ImapMailbox, MailWorker
from meshhost.agents.mail import imap as imap_module
from meshhost.errors import InvalidRequestError, TooLargeError
from meshhost.room.client import RoomClient
from meshhost.tasks import TaskOwner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
async def dovecot() -> AsyncIterator[Dovecot]:
    async with running_dovecot() as running:
        yield running


def mailbox(dovecot: Dovecot, **options: Any) -> ImapMailbox:
    values: dict[str, Any] = {"username": "anybody", "password": "secret", "port": dovecot.port, "tls": "none"}
    return ImapMailbox("127.0.0.1", **values | {"poll_seconds": 0.1} | options)


def mail(name: str) -> bytes:
    return f"From: ann@example.org\r\nTo: bot@example.com\r\nMessage-ID: <{name}@x>\r\n\r\n{name}\r\n".encode()


async def add(dovecot: Dovecot, name: str, **options: Any) -> None:
    await asyncio.to_thread(dovecot.add, mail(name), **options)


async def names_in(room: RoomClient, number: int) -> list[str]:
    """The names of the mails in the queue, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            found = [each.message async for each in room.queues.find("email")]
            if len(found) >= number:
                texts = [base64.b64decode(each["base64"]).decode() for each in found]
                return [text.split()[-1] for text in reversed(texts)]
            await asyncio.sleep(0.05)


async def until_seen(dovecot: Dovecot, number: int) -> None:
    async with asyncio.timeout(60):
        while sum(b"\\Seen" in each for each in await asyncio.to_thread(dovecot.flags)) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
async def polling(user: RoomClient) -> AsyncIterator[Callable[[ImapMailbox], Any]]:
    """Polls until it is called again, or the test ends."""
    tasks = TaskOwner("test")

    async def start(given: ImapMailbox) -> None:
        await tasks.stop()
        tasks.spawn(imap_module.poll(given, room=user, queue="email"), name="poll")

    await user.queues.open(name="email")
    yield start
    await tasks.stop()


async def test_unseen_mails_are_stored_then_marked_and_not_stored_again(
    dovecot: Dovecot, user: RoomClient, polling: Any
) -> None:
    await add(dovecot, "old", flags=r"\Seen")
    await add(dovecot, "first")
    await polling(mailbox(dovecot))
    assert await names_in(user, 1) == ["first"]
    await add(dovecot, "second", flags=r"\Seen")  # somebody has read it in the moment between
    await add(dovecot, "third")
    assert await names_in(user, 3) == ["first", "second", "third"]
    await until_seen(dovecot, 4)
    await polling(mailbox(dovecot))  # as after a restart
    await add(dovecot, "fourth")
    assert await names_in(user, 4) == ["first", "second", "third", "fourth"]


async def test_a_crash_before_marking_stores_no_mail_twice(
    dovecot: Dovecot, user: RoomClient, polling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: Any) -> None:
        crashed.set()
        raise OSError("killed before it was noted")

    crashed = asyncio.Event()
    monkeypatch.setattr(imap_module, "_store", crash)
    await add(dovecot, "only")
    await polling(mailbox(dovecot))
    async with asyncio.timeout(30):
        await crashed.wait()
    monkeypatch.undo()
    await polling(mailbox(dovecot))
    await until_seen(dovecot, 1)
    assert await names_in(user, 1) == ["only"]


async def test_when_the_server_counts_anew_unseen_mails_are_not_lost(
    dovecot: Dovecot, user: RoomClient, polling: Any
) -> None:
    await add(dovecot, "first")
    await polling(mailbox(dovecot))
    await names_in(user, 1)
    await until_seen(dovecot, 1)
    await polling(mailbox(dovecot, poll_seconds=1000.0, mark_seen=False))
    await asyncio.to_thread(dovecot.number_anew)
    await add(dovecot, "second")
    await polling(mailbox(dovecot))
    assert (await names_in(user, 2))[-1] == "second"


async def test_a_mail_that_is_too_large_stays_and_holds_up_no_other(
    dovecot: Dovecot, user: RoomClient, polling: Any
) -> None:
    await asyncio.to_thread(dovecot.add, mail("large") + b"x" * 10_000)
    await add(dovecot, "small")
    await polling(mailbox(dovecot, max_bytes=5000))
    assert await names_in(user, 1) == ["small"]
    await until_seen(dovecot, 1)


async def test_a_mail_that_is_too_large_for_the_queue_holds_up_no_other(
    dovecot: Dovecot, user: RoomClient, polling: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send = user.queues.send

    async def into_small_queue(name: str, message: Any, **options: Any) -> Any:
        if len(message["base64"]) > 10_000:
            raise TooLargeError("message of 10001 bytes, a queue takes at most 10000")
        return await send(name, message, **options)

    monkeypatch.setattr(user.queues, "send", into_small_queue)
    await asyncio.to_thread(dovecot.add, mail("large") + b"x" * 10_000)
    await add(dovecot, "small")
    await polling(mailbox(dovecot))
    assert await names_in(user, 1) == ["small"]
    await until_seen(dovecot, 1)
    await add(dovecot, "later")
    assert await names_in(user, 2) == ["small", "later"]
    assert caplog.text.count("mails are too large and stay in the mailbox") == 1


async def test_a_wrong_password_is_tried_again(
    dovecot: Dovecot, user: RoomClient, polling: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await polling(mailbox(dovecot, password="wrong"))
    async with asyncio.timeout(60):
        while "a mailbox cannot be read" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert "wrong" not in caplog.text.replace("went wrong", "")


async def test_an_agent_answers_what_it_finds_in_its_mailbox(
    dovecot: Dovecot, user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any
) -> None:
    await add(dovecot, "question")
    async with working(worker_for(imap=mailbox(dovecot))):
        answer = (await sink.received(1)).mail
    assert (answer.in_reply_to, answer.text) == ("<question@x>", "Dear Ann")


def test_wrong_settings_of_a_mailbox_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="tls"):
        ImapMailbox("imap.example.com", "u", "p", tls="perhaps")
    assert "secret" not in repr(ImapMailbox("imap.example.com", "u", "secret"))
