"""Agents that answer mail, on a real room server and with a real SMTP server."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from doubles.smtp_sink import SmtpSink

from meshhost.agents.mail import DkimKey, MailBot, MailWorker, SmtpConfiguration, room_address
from meshhost.errors import AccessDeniedError, InvalidRequestError, MessageFailedError, SettingsError
from meshhost.identity.grants import ApiScope, MessagingGrant, QueuesGrant, StorageGrant
from meshhost.mail.parsing import parse_mail
from meshhost.room.client import RoomClient
from meshhost.room.services.queues import NewMessage
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import RunningServer

BOT = "bot@example.com"
pytestmark = pytest.mark.timeout(120)


async def answered(user: RoomClient, message: dict[str, str], queue: str = "email") -> Any:
    """Send a mail into the queue; return what the agent did with it."""
    return await user.queues.send(queue, message, reply=True, timeout=60)


async def until_some(user: RoomClient, queue: str, state: Any, number: int) -> list[str]:
    """Wait for so many messages of a queue in this state; return their ids, the oldest first."""
    ids: list[str] = []
    async with asyncio.timeout(60):
        while len(ids) < number:
            await asyncio.sleep(0.05)
            ids = [each.id async for each in user.queues.find(queue, states=[state])]
    return ids[::-1]


async def ended(user: RoomClient, number: int, queue: str = "email.out") -> list[Any]:
    """The results of so many messages, in the order in which they were sent."""
    records = [await user.queues.get(queue, each) for each in await until_some(user, queue, "done", number)]
    return [each.result for each in records if each is not None]


async def test_a_mail_is_answered_in_its_thread(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    llm = ScriptedLLM(["**Yes**", "Still yes"])
    async with working(worker_for(llm)):
        first = await answered(user, written("Is it?", Subject="Is it?"))
        answer = (await sink.received(1)).mail
        assert first == {"answered": True, "message_id": answer.message_id}
        assert (answer.subject, answer.text, answer.in_reply_to) == ("RE: Is it?", "**Yes**", "<q1@example.org>")
        assert answer.html == "<p><strong>Yes</strong></p>\n"
        assert answer.first("auto-submitted") == "auto-replied"
        assert sink.mails[0].recipients == ("ann@example.org",)
        assert sink.logins == [("u", "p")]

        # A client that sends References only, and not In-Reply-To.
        follow = written("Sure?", Message_ID="<q2@example.org>", References=f"<q1@example.org> {answer.message_id}")
        await answered(user, follow)
        second = (await sink.received(2)).mail
        assert second.references == ("<q1@example.org>", answer.message_id, "<q2@example.org>")
        told = [json.loads(each["content"]) for each in llm.contexts[1].conversation]
        assert [each["body"].strip() for each in told] == ["Is it?", "**Yes**", "Sure?"]
        assert [each["role"] for each in llm.contexts[1].conversation] == ["user", "assistant", "user"]
        assert [each["status"] for each in await ended(user, 2)] == ["delivered", "delivered"]


async def test_what_was_received_is_in_storage_with_its_attachments(
    user: RoomClient, worker_for: Callable[..., MailWorker], working: Any
) -> None:
    content = (
        b"From: ann@example.org\r\nTo: bot@example.com\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
        b"--x\r\n\r\nsee file\r\n--x\r\nContent-Disposition: attachment; filename=../../x.txt\r\n\r\nfile\r\n--x--\r\n"
    )
    llm = ScriptedLLM(default="ok")
    async with working(worker_for(llm)):
        await answered(user, {"base64": base64.b64encode(content).decode()})
    told = json.loads(llm.contexts[0].conversation[0]["content"])
    [path] = told["attachments"]
    assert path == f"{told['path']}/attachments/x.txt"
    assert (await user.storage.download(path=path)).data == b"file"
    assert (await user.storage.download(path=f"{told['path']}/message.eml")).data == content
    assert told["id"].endswith("@example.org>")  # one was made for a mail without


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Auto_Submitted": "auto-replied"}, "automatic"),
        ({"Return_Path": "<>"}, "bounce"),
        ({"List_Id": "<l.example>"}, "list"),
        ({"sender": "MAILER-DAEMON@example.org"}, "program"),
    ],
)
async def test_programs_are_not_answered(
    headers: dict[str, str],
    reason: str,
    user: RoomClient,
    sink: SmtpSink,
    worker_for: Callable[..., MailWorker],
    working: Any,
    written: Any,
) -> None:
    llm = ScriptedLLM()
    async with working(worker_for(llm)):
        assert await answered(user, written(**headers)) == {"answered": False, "reason": reason}
    assert (llm.calls, sink.mails) == ([], [])


async def test_two_agents_that_write_to_each_other_stop_at_the_brake(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    """Neither says that it is a program, and every mail is brought to the other one, as a mail server would."""
    queues = {"bot@example.com": "a", "tom@example.org": "b"}

    async def bring(envelope: Any) -> None:
        message = {"base64": base64.b64encode(envelope.original_content).decode()}
        await user.queues.send(queues[envelope.rcpt_tos[0]], message)

    sink.on_data = bring
    options: dict[str, Any] = {"auto_submitted": False, "max_answers": 3}
    one = worker_for(queue="a", **options)
    other = worker_for(queue="b", name="tom", email_address="tom@example.org", **options)
    async with working(one), working(other):
        await user.queues.send("a", written(sender="tom@example.org"))
        # bot, tom, bot, tom, bot, tom; then bot may not.
        await sink.received(6)
        results = await ended(user, 4, "a")
        assert results[-1] == {"answered": False, "reason": "too many"}
        assert len(sink.mails) == 6
    # It is known after a restart, too.
    again = worker_for(queue="a", **options)
    async with working(again):
        late = written(sender="Tom <TOM+x@example.org>", Message_ID="<late@example.org>")
        assert await answered(user, late, "a") == {"answered": False, "reason": "too many"}
        other_person = written(Message_ID="<other@example.org>")
        assert (await answered(user, other_person, "a"))["answered"]


async def test_an_agent_that_says_so_is_not_answered_by_another(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    async with working(worker_for(queue="a")):
        await answered(user, written(sender="tom@example.org"), "a")
        answer = await sink.received(1)
    other = worker_for(queue="b", name="tom", email_address="tom@example.org")
    async with working(other):
        message = {"base64": base64.b64encode(answer.content).decode()}
        assert await answered(user, message, "b") == {"answered": False, "reason": "automatic"}


async def test_the_same_mail_is_answered_once(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    llm = ScriptedLLM(["once"])
    async with working(worker_for(llm)):
        first = await answered(user, written())
        assert await answered(user, written()) == first
        await ended(user, 1)
    assert (len(llm.calls), len(sink.mails)) == (1, 1)


async def test_another_mail_under_a_known_id_replaces_nothing(
    user: RoomClient, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    async with working(worker_for()) as client:
        await answered(user, written("pay Ann"))
        await answered(user, written("pay Eve", sender="eve@evil.example"))
        worker = worker_for()
        await worker.start(room=client)
        kept = await worker.load_message(message_id="<q1@example.org>")
        await worker.stop()
    assert kept is not None
    assert kept["body"].strip() == "pay Ann"


async def test_what_the_server_puts_off_is_tried_again_and_what_it_refuses_is_not(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    sink.answers = {"ann@example.org": ["451 later", "421 even later"], "bob@example.org": ["550 nobody"]}
    worker = worker_for(reply_all=True)
    worker.retry_seconds = 0.01
    async with working(worker):
        await answered(user, written(to=f"{BOT}, bob@example.org"))
        results = await ended(user, 2)
    assert {each["recipient"]: (each["status"], each["code"]) for each in results} == {
        "ann@example.org": ("delivered", 250),
        "bob@example.org": ("failed", 550),
    }
    assert sorted(sink.tries) == ["ann@example.org"] * 3 + ["bob@example.org"]
    [taken] = sink.mails
    assert taken.mail.cc[0].address == "bob@example.org"


async def test_mail_waits_for_a_server_that_is_away(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    port = sink.port
    await sink.__aexit__()
    worker = worker_for()
    worker.retry_seconds = 0.05
    async with working(worker):
        await answered(user, written())
        await until_some(user, "email.out", "failed", 1)
        async with SmtpSink(port=port) as back:
            assert (await back.received(1)).mail.text == "Dear Ann"


async def test_an_answer_that_was_written_before_a_crash_is_sent_without_asking_the_model_again(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    class Crashing(MailWorker):
        async def _post(self, saved: dict[str, Any]) -> None:
            if len(llm.calls) == 1 and not crashed:
                crashed.append(saved["id"])
                raise RuntimeError("between saving and sending")
            await super()._post(saved)

    crashed: list[str] = []
    llm = ScriptedLLM(["the answer"])
    async with working(worker_for(llm, kind=Crashing)):
        result = await answered(user, written())
        assert (await sink.received(1)).mail.message_id == crashed[0] == result["message_id"]
    assert len(llm.calls) == 1


async def test_a_file_that_the_model_attaches_is_sent(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    await user.storage.upload(path="reports/july.txt", data=b"42")

    async def attach(call: Any) -> str:
        from meshhost.tools.tool import ToolContext

        [kit] = [each for each in call.toolkits if each.name == "mail"]
        context = ToolContext(room=call.room, caller=call.room.local_participant)
        await kit.execute(context=context, name="attach file", arguments={"path": "reports/july.txt"})
        return "see the file"

    async with working(worker_for(ScriptedLLM([attach]), enable_attachments=True)):
        await answered(user, written())
        [attachment] = (await sink.received(1)).mail.attachments
    assert (attachment.name, attachment.data) == ("july.txt", b"42")


async def test_a_mail_bot_takes_the_queue_of_its_address_and_offers_to_write(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    bot = worker_for(kind=MailBot, toolkit_name="mail", whitelist=["example.org"])
    async with working(bot):
        assert (await answered(user, written(), BOT))["answered"]
        arguments = {"to": "carl@example.org", "subject": "News", "body": "Hi", "attachments": []}
        await user.agents.invoke_tool(toolkit="mail", tool="new_email_thread", arguments=arguments)
        new = await sink.received(2)
        assert (new.recipients, new.mail.subject) == (("carl@example.org",), "News")
        assert new.mail.first("auto-submitted") == "auto-generated"
        # The answer to it knows what it answers.
        follow = written("What news?", sender="carl@example.org", Message_ID="<c@x>", In_Reply_To=new.mail.message_id)
        await answered(user, follow, BOT)
        strange = written(sender="eve@evil.example", Message_ID="<e@x>")
        assert await answered(user, strange, BOT) == {"answered": False, "reason": "not allowed"}


async def test_a_worker_whose_toolkit_is_refused_is_not_left_running(
    server: RunningServer, worker_for: Callable[..., MailWorker]
) -> None:
    scope = ApiScope(queues=QueuesGrant(), storage=StorageGrant(), messaging=MessagingGrant())
    async with server.client("room", name="bot", role="agent", scope=scope) as client:
        worker = worker_for(toolkit_name="mail")
        with pytest.raises(AccessDeniedError):
            await worker.start(room=client)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in names if "outbox" in name or "mail" in name], names


async def test_programs_written_for_the_reference_override_what_they_did_there(
    user: RoomClient, sink: SmtpSink, worker_for: Callable[..., MailWorker], working: Any, written: Any
) -> None:
    seen: list[str] = []

    class Mine(MailWorker):
        async def append_message_context(self, *, message, chat_context, thread):  # type: ignore[no-untyped-def]
            seen.append(message["subject"])
            await super().append_message_context(message=message, chat_context=chat_context, thread=thread)

        async def process_message(self, *, chat_context, message, toolkits):  # type: ignore[no-untyped-def]
            seen.append(min(message))
            return await super().process_message(chat_context=chat_context, message=message, toolkits=toolkits)

        def create_reply_email_message(self, *, message, from_address, body):  # type: ignore[no-untyped-def]
            from meshhost.mail.composing import new_mail

            return new_mail(sender=from_address, to=[message["reply_to"]], subject="mine", body=body.upper())

    async with working(worker_for(kind=Mine)):
        await answered(user, written())
        sent = (await sink.received(1)).mail
    assert (sent.subject, sent.text, seen) == ("mine", "DEAR ANN", ["base64", "Question"])


def _rsa() -> tuple[bytes, bytes]:
    key = rsa.generate_private_key(65537, 2048)
    kinds = serialization.Encoding, serialization.PrivateFormat, serialization.PublicFormat
    private = key.private_bytes(kinds[0].PEM, kinds[1].TraditionalOpenSSL, serialization.NoEncryption())
    public = key.public_key().public_bytes(kinds[0].DER, kinds[2].SubjectPublicKeyInfo)
    return private, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


async def test_what_is_sent_is_signed_and_a_change_shows(
    user: RoomClient,
    sink: SmtpSink,
    worker_for: Callable[..., MailWorker],
    working: Any,
    written: Any,
) -> None:
    private, record = _rsa()
    async with working(worker_for(dkim=DkimKey("example.com", "s1", private))):
        await answered(user, written())
        content = (await sink.received(1)).content

    def look_up(name: bytes, timeout: float = 5) -> bytes | None:
        return record if name == b"s1._domainkey.example.com." else None

    assert dkim.verify(content, dnsfunc=look_up)
    assert not dkim.verify(content.replace(b"Dear Ann", b"Dear Eve"), dnsfunc=look_up)


def test_a_key_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="cannot sign"):
        DkimKey("example.com", "s1", b"nonsense")


@pytest.mark.parametrize("message", [{}, {"base64": 1}, {"base64": "ä"}, []])
async def test_a_message_that_holds_no_mail_is_dead_with_the_reason(
    message: Any, user: RoomClient, worker_for: Callable[..., MailWorker], working: Any
) -> None:
    await user.queues.open(name="email")
    await user.queues.configure("email", max_attempts=1)
    async with working(worker_for()):
        with pytest.raises(MessageFailedError, match="expected a mail in base64"):
            await answered(user, message)


async def test_the_token_is_offered_to_the_own_server_only(
    server: RunningServer,
    user: RoomClient,
    sink: SmtpSink,
    worker_for: Callable[..., MailWorker],
    working: Any,
    written: Any,
) -> None:
    async with working(worker_for(smtp=SmtpConfiguration(hostname="127.0.0.1", port=sink.port))) as client:
        await answered(user, written())
        await sink.received(1)
        assert sink.logins == [("bot", client.protocol.token)]  # type: ignore[attr-defined]


def test_arguments_that_cannot_work_are_refused() -> None:
    options: dict[str, Any] = {"name": "x", "llm_adapter": ScriptedLLM(), "email_address": BOT}
    for wrong in ({"email_address": "nobody"}, {"max_answers": 0}, {"answer_window": 0}):
        with pytest.raises(InvalidRequestError):
            MailWorker(**options | wrong)
    with pytest.raises(InvalidRequestError, match="skill_dirs"):
        MailBot(**options, skill_dirs=["x"])
    with pytest.raises(InvalidRequestError, match="tls"):
        SmtpConfiguration(tls="perhaps")


def test_a_room_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHAGENT_MAIL_DOMAIN", "mail.example.com")
    assert room_address(project_id="p1", room_name="lobby") == "lobby.p1@mail.example.com"
    with pytest.raises(InvalidRequestError):
        room_address(room_name="a b")


def test_a_sample_survives_the_way_through_json() -> None:
    assert NewMessage({"base64": ""}).message == {"base64": ""}
    assert parse_mail(b"").text == ""
