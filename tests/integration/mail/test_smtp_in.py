"""The SMTP and LMTP listener of a room server: what is taken, what is refused, and that nothing that was taken is lost."""

import asyncio
import base64
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import aiosmtplib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from doubles.smtp_sink import SmtpSink

from meshhost.agents.mail import MailWorker, SmtpConfiguration
from meshhost.app.config_file import ServerFile
from meshhost.errors import SettingsError, StorageFullError
from meshhost.identity.grants import ApiScope, QueuesGrant
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.mail.parsing import Mail, parse_mail
from meshhost.server.config import MailConfig
from meshhost.server.mail.crowd import Crowd, network_of
from meshhost.stores.queues import QueueKey
from meshhost.testing.clock import FakeClock
from meshhost.testing.scripted_llm import ScriptedLLM
from meshhost.testing.server import RunningServer, running_server
from meshhost.triggers.mailboxes import Mailboxes, MailboxSpec
from meshhost.triggers.signatures import Scheme, sign

BOT = "bot@example.com"
HELLO = b"From: ann@example.org\r\nTo: bot@example.com\r\nMessage-ID: <1@example.org>\r\nSubject: x\r\n\r\nHello\r\n"
pytestmark = pytest.mark.timeout(120)


class Mailing:
    """A room server with its mail ports, and mailboxes in its room."""

    def __init__(self, running: RunningServer) -> None:
        self.running = running
        self.ports = running.server.parts.mail
        self.tenant = TenantId(running.key.project_id)

    @property
    def port(self) -> int:
        assert self.ports.port is not None
        return self.ports.port

    async def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.running.api_key}"}
        url = f"{self.running.url}/accounts/projects/{self.running.key.project_id}{path}"
        async with aiohttp.ClientSession() as http, http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json() if answer.status != 204 else None

    async def add(self, address: str = BOT, queue: str = "email", room: str = "room") -> None:
        status, _ = await self.rest("POST", "/mailboxes", {"address": address, "room": room, "queue": queue})
        assert status == 200

    async def stored(self, queue: str = "email", room: str = "room") -> list[dict[str, Any]]:
        """All messages of a queue."""
        key = QueueKey(RoomKey(self.tenant, room), queue)
        async with self.running.client(room) as client:
            return [each.message async for each in client.queues.find(queue)] if await self._exists(key) else []

    async def _exists(self, key: QueueKey) -> bool:
        return any(each.name == key.name for each in await self.running.server.engines.queues.stats(key.room))

    async def send(self, content: bytes = HELLO, *, to: str | list[str] = BOT, sender: str = "ann@example.org") -> Any:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=self.port, start_tls=False)
        async with client:
            return await client.sendmail(sender, [to] if isinstance(to, str) else to, content)

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as http, http.get(f"{self.running.url}/metrics") as answer:
            return await answer.text()


@pytest.fixture
def mailing(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(**tables: Any) -> AsyncIterator[Mailing]:
        mail = {"listen": "127.0.0.1:0", "hostname": "mx.example.com"} | tables.pop("mail", {})
        file = ServerFile.model_validate({"mail": mail} | tables)
        async with running_server(tmp_path / "data", file=file) as running:
            yield Mailing(running)

    return make


class Talk:
    """A client that says what it likes."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Talk":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def say(self, line: bytes | str) -> str:
        """Send a line, and return the answer."""
        self.writer.write((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return await self.answer()

    async def answer(self) -> str:
        async with asyncio.timeout(30):
            text = ""
            while True:
                line = (await self.reader.readline()).decode()
                text += line
                if not line or line[3:4] != "-":
                    return text

    async def begin(self, to: str = BOT, sender: str = "ann@example.org", hello: str = "EHLO") -> str:
        await self.answer()
        await self.say(f"{hello} client.example")
        await self.say(f"MAIL FROM:<{sender}>")
        return await self.say(f"RCPT TO:<{to}>")


async def test_a_mail_is_stored_before_it_is_accepted_and_has_its_envelope(mailing: Callable[..., Any]) -> None:
    async with mailing() as mail:
        await mail.add()
        _, answer = await mail.send()
        assert answer.startswith("2.0.0 stored as message ")
        [message] = await mail.stored()
        assert message["envelope"] == {"from": "ann@example.org", "to": BOT}
        content = base64.b64decode(message["base64"])
        assert content.endswith(HELLO)
        read = parse_mail(content)
        assert (read.first("return-path"), read.first("delivered-to")) == ("<ann@example.org>", BOT)
        assert "by mx.example.com with ESMTP" in (read.first("received") or "")
        _, deliveries = await mail.rest("GET", f"/mailboxes/{BOT}/deliveries")
        assert [(each["outcome"], each["from"]) for each in deliveries["deliveries"]] == [("stored", "ann@example.org")]
        assert 'meshhost_mail_received_total{to="mailbox"} 1.0' in await mail.metrics()


async def test_a_mail_that_comes_again_is_stored_once_and_one_without_an_id_each_time(
    mailing: Callable[..., Any],
) -> None:
    async with mailing() as mail:
        await mail.add()
        for _ in range(2):
            await mail.send()
            await mail.send(b"Subject: ping\r\n\r\nping\r\n")
        assert len(await mail.stored()) == 3


async def test_only_mailboxes_take_mail_and_guessing_is_slowed_down(mailing: Callable[..., Any]) -> None:
    async with mailing(mail={"max_unknown": 2}) as mail:
        await mail.add()
        async with Talk(mail.port) as client:
            assert (await client.begin("nobody@example.com")).startswith("550 5.1.1")
            assert (await client.say("RCPT TO:<Bot+Tag@EXAMPLE.com>")).startswith("250")
            assert (await client.say("RCPT TO:<ann@gmail.example>")).startswith("550 5.1.1")
            assert (await client.say("RCPT TO:<bot@example.com>")).startswith("450 4.7.1")
        assert 'meshhost_mail_refused_total{reason="unknown recipient"} 2.0' in await mail.metrics()
        assert 'meshhost_mail_refused_total{reason="guessing"} 1.0' in await mail.metrics()


@pytest.mark.parametrize(
    "smuggled",
    [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r\n.\n", b"\r\r\n.\r\n"],
    ids=repr,
)
async def test_a_second_mail_cannot_be_smuggled_in_the_first(mailing: Callable[..., Any], smuggled: bytes) -> None:
    second = b"MAIL FROM:<eve@evil.example>\r\nRCPT TO:<bot@example.com>\r\nDATA\r\nSubject: evil\r\n\r\nevil"
    async with mailing() as mail:
        await mail.add()
        async with Talk(mail.port) as client:
            await client.begin()
            await client.say("DATA")
            client.writer.write(HELLO + b"x" + smuggled + second + b"\r\n.\r\n")
            assert "bare CR or LF" in await client.answer()
            assert (await client.say("NOOP")).startswith("250")
        assert await mail.stored() == []


async def test_bounces_lines_of_any_length_and_dots_are_kept_as_they_are(mailing: Callable[..., Any]) -> None:
    content = b"Subject: x\r\n\r\n..dots\r\n.\r\n" + b"y" * 990 + b"\r\n"
    async with mailing() as mail:
        await mail.add()
        await mail.send(content, sender="")
        [message] = await mail.stored()
        assert message["envelope"]["from"] == ""
        raw = base64.b64decode(message["base64"])
        assert raw.startswith(b"Return-Path: <>\r\n")
        assert raw.endswith(content)


async def test_a_mail_that_is_too_large_is_refused_however_it_is_sent(mailing: Callable[..., Any]) -> None:
    async with mailing(mail={"max_bytes": 10_000}) as mail:
        await mail.add()
        with pytest.raises(aiosmtplib.SMTPSenderRefused, match="size"):
            await mail.send(HELLO + b"x" * 10_000)
        async with Talk(mail.port) as client:
            await client.begin()
            await client.say("DATA")
            client.writer.write((b"x" * 98 + b"\r\n") * 150 + b".\r\n")
            assert (await client.answer()).startswith("552")
        async with Talk(mail.port) as client:  # a line that never ends
            await client.begin()
            await client.say("DATA")
            client.writer.write(b"x" * 200_000)
            assert (await client.answer()).startswith("552 5.3.4")
            with contextlib.suppress(ConnectionResetError):
                assert await client.reader.read() == b""
        assert await mail.stored() == []


async def test_slow_and_idle_clients_are_ended_and_steady_ones_are_not(mailing: Callable[..., Any]) -> None:
    async with mailing(mail={"idle_seconds": 0.3, "bytes_per_second": 1000}) as mail:
        await mail.add()
        async with Talk(mail.port) as idle, Talk(mail.port) as slow:
            await slow.begin()
            await slow.say("DATA")
            slow.writer.write(b"S")
            assert (await slow.answer()).startswith("421 4.4.2")
            await idle.answer()
            assert (await idle.answer()).startswith("421 4.4.2")
        async with Talk(mail.port) as steady:
            await steady.begin()
            await steady.say("DATA")
            for _ in range(12):
                steady.writer.write(b"x" * 998 + b"\r\n")
                await asyncio.sleep(0.05)
            steady.writer.write(b".\r\n")
            assert (await steady.answer()).startswith("250")


async def test_an_address_has_so_many_connections_and_mails(mailing: Callable[..., Any]) -> None:
    async with mailing(mail={"max_connections_per_address": 2, "mails_per_minute": 2}) as mail:
        await mail.add()
        async with Talk(mail.port) as one, Talk(mail.port) as two:
            await one.answer()
            await two.answer()
            async with Talk(mail.port) as three:
                assert (await three.answer()).startswith("421 4.7.0")
                assert await three.reader.read() == b""
        for _ in range(2):
            await mail.send()
        with pytest.raises(aiosmtplib.SMTPDataError, match="too many mails"):
            await mail.send()


def test_addresses_are_counted_by_network_and_in_total() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"
    crowd = Crowd(
        MailConfig(max_connections=2, max_connections_per_address=1, max_buffered_bytes=10), clock=FakeClock()
    )
    assert [crowd.enter(each) for each in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3")] == [
        True,
        False,
        True,
        False,
    ]
    crowd.leave("10.0.0.1")
    assert crowd.enter("10.0.0.3")
    assert [crowd.buffer(6), crowd.buffer(6)] == [True, False]
    crowd.release(6)
    assert crowd.buffer(10)


@pytest.mark.parametrize(
    ("error", "answer"),
    [(OSError("disk"), "451 4.3.0"), (StorageFullError("full"), "452 4.3.1"), (RuntimeError("a bug"), "451 4.3.0")],
)
async def test_what_cannot_be_stored_is_not_accepted(
    mailing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception, answer: str
) -> None:
    async with mailing() as mail:
        await mail.add()

        async def fail(*_: Any, **__: Any) -> int:
            raise error

        monkeypatch.setattr(mail.running.server.engines.queues, "send", fail)
        async with Talk(mail.port) as client:
            await client.begin()
            await client.say("DATA")
            assert (await client.say(HELLO + b".")).startswith(answer)
            assert (await client.say("NOOP")).startswith("250")
        monkeypatch.undo()
        await mail.send()
        assert len(await mail.stored()) == 1


async def test_a_full_queue_is_for_later(mailing: Callable[..., Any]) -> None:
    async with mailing(queues={"max_depth": 1}) as mail:
        await mail.add()
        await mail.add("other@example.com", "other")
        await mail.send()
        with pytest.raises(aiosmtplib.SMTPDataError) as caught:
            await mail.send(HELLO.replace(b"<1@", b"<2@"), to=["other@example.com", BOT])
        assert caught.value.code == 452
        # It comes again, when there is room, and the other mailbox knows it.
        async with mail.running.client("room") as room:
            await room.queues.purge("email")
        await mail.send(HELLO.replace(b"<1@", b"<2@"), to=["other@example.com", BOT])
        assert [len(await mail.stored(queue)) for queue in ("email", "other")] == [1, 1]


async def test_lmtp_answers_for_each_recipient(mailing: Callable[..., Any]) -> None:
    async with mailing(mail={"protocol": "lmtp"}, queues={"max_depth": 1}) as mail:
        await mail.add()
        await mail.add("other@example.com", "other")
        async with Talk(mail.port) as client:
            await client.answer()
            assert (await client.say("EHLO x")).startswith("500")
            assert (await client.say("HELO x")).startswith("500")
            for expected in ([b"250", b"250"], [b"452", b"452"]):
                await client.say("LHLO client.example")
                await client.say("MAIL FROM:<ann@example.org>")
                await client.say(f"RCPT TO:<{BOT}>")
                await client.say("RCPT TO:<other@example.com>")
                await client.say("DATA")
                client.writer.write(HELLO.replace(b"<1@", b"<" + expected[0] + b"@") + b".\r\n")
                assert [(await client.reader.readline())[:3] for _ in expected] == expected


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


async def test_starttls_is_spoken_and_what_came_before_it_is_forgotten(
    mailing: Callable[..., Any], tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path)
    async with mailing(mail={"certificate_file": cert, "key_file": key, "require_tls": True}) as mail:
        await mail.add()
        with pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
            await mail.send()
        context = ssl.create_default_context(cafile=cert)
        client = aiosmtplib.SMTP(hostname="localhost", port=mail.port, start_tls=True, tls_context=context)
        async with client:
            await client.sendmail("ann@example.org", [BOT], HELLO)
        [message] = await mail.stored()
        assert b"with ESMTPS" in base64.b64decode(message["base64"])
        async with Talk(mail.port) as plain:
            await plain.answer()
            await plain.say("EHLO x")
            # Injected before TLS: must never be answered as if it came through it.
            plain.writer.write(b"STARTTLS\r\nNOOP\r\n")
            assert (await plain.answer()).startswith("220")


async def test_a_participant_sends_by_its_token_as_its_own_mailbox(mailing: Callable[..., Any], sink: SmtpSink) -> None:
    relay = {"host": "127.0.0.1", "port": sink.port, "tls": "never"}
    async with mailing(mail={"submission": "127.0.0.1:0", "relay": relay}) as mail:
        await mail.add()
        await mail.add("colleague@example.com", "other")
        await mail.add("stranger@example.com", "x", room="elsewhere")
        port = mail.ports.submission_port

        async def submit(token: str, content: bytes, sender: str, to: list[str]) -> Any:
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
            async with client:
                await client.login("anything", token)
                return await client.sendmail(sender, to, content)

        token = mail.running.token("room", name="bot", role="agent")
        out = b"From: bot@example.com\r\nSubject: out\r\nMessage-ID: <o@x>\r\n\r\nHi\r\n"
        errors, _ = await submit(token, out, BOT, ["ann@example.org", "colleague@example.com"])
        assert errors == {}
        assert (await sink.received(1)).recipients == ("ann@example.org",)
        assert len(await mail.stored("other")) == 1

        sink.answers = {"gone@example.org": ["550 5.1.1 nobody"]}
        errors, _ = await submit(token, out, BOT, ["gone@example.org", "ann@example.org"])
        assert errors["gone@example.org"][0] == 550
        sink.data_answers = ["451 greylisted"]
        with pytest.raises(aiosmtplib.SMTPDataError, match="greylisted"):
            await submit(token, out, BOT, ["ann@example.org"])

        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await submit("nonsense", out, BOT, ["ann@example.org"])
        both = out.replace(b"bot@example.com", b"bot@example.com, ceo@example.com")
        twice = b"From: ceo@example.com\r\n" + out
        for sender, content in (
            ("stranger@example.com", out),
            (BOT, out.replace(b"bot@", b"ceo@")),
            (BOT, both),
            (BOT, twice),
        ):
            with pytest.raises(aiosmtplib.SMTPException, match="no mailbox of your room"):
                await submit(token, content, sender, ["ann@example.org"])
        # Above the text, but behind a line that is no header: some programs show this one.
        hidden = out.replace(b"Subject:", b"no header\r\nFrom : ceo@example.com\r\nSubject:")
        with pytest.raises(aiosmtplib.SMTPException, match="more than one From"):
            await submit(token, hidden, BOT, ["ann@example.org"])
        narrow = mail.running.token("room", scope=ApiScope(queues=QueuesGrant(send=["email"], receive=[])))
        with pytest.raises(aiosmtplib.SMTPException, match="does not grant"):
            await submit(narrow, out, BOT, ["ann@example.org"])
        async with Talk(port or 0) as client:
            assert (await client.begin("ann@example.org")).startswith("530")
        metrics = await mail.metrics()
        assert 'meshhost_mail_received_total{to="relay"} 2.0' in metrics
        assert 'meshhost_mail_relayed_total{outcome="failed"} 1.0' in metrics
        assert 'meshhost_mail_relayed_total{outcome="deferred"} 1.0' in metrics


@pytest.mark.parametrize("greeting", [b"554 5.7.1 go away\r\n", b"999 what\r\n", b"nonsense\r\n", b""])
async def test_a_next_server_that_refuses_us_is_no_refusal_for_good(
    mailing: Callable[..., Any], greeting: bytes
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as refusing:
        relay = {"host": "127.0.0.1", "port": refusing.sockets[0].getsockname()[1], "tls": "never"}
        async with mailing(mail={"submission": "127.0.0.1:0", "relay": relay}) as mail:
            await mail.add()
            token = mail.running.token("room", name="bot", role="agent")
            client = aiosmtplib.SMTP(hostname="127.0.0.1", port=mail.ports.submission_port, start_tls=False)
            async with client:
                await client.login("anything", token)
                await client.mail(BOT)
                with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
                    await client.rcpt("ann@example.org")
            assert refused.value.code == 451


async def test_an_address_that_is_no_text_is_refused(mailing: Callable[..., Any]) -> None:
    async with mailing() as mail:
        await mail.add()
        async with Talk(mail.port) as client:
            await client.answer()
            await client.say("EHLO x")
            client.writer.write(b"MAIL FROM:<ann\xff@example.org>\r\n")
            assert (await client.answer()).startswith("553")
            assert (await client.say("MAIL FROM:<ann@example.org>")).startswith("250")
            client.writer.write(b"RCPT TO:<b\xfft@example.com>\r\n")
            assert (await client.answer()).startswith("550")


async def test_a_participant_that_is_gone_in_the_middle_of_a_mail_leaves_no_connection_to_the_relay(
    mailing: Callable[..., Any], sink: SmtpSink
) -> None:
    relay = {"host": "127.0.0.1", "port": sink.port, "tls": "never"}
    async with mailing(mail={"submission": "127.0.0.1:0", "relay": relay}) as mail:
        await mail.add()
        token = mail.running.token("room", name="bot", role="agent")
        login = base64.b64encode(f"\0bot\0{token}".encode()).decode()
        async with Talk(mail.ports.submission_port or 0) as client:
            await client.answer()
            await client.say("EHLO client.example")
            assert (await client.say(f"AUTH PLAIN {login}")).startswith("235")
            assert (await client.say(f"MAIL FROM:<{BOT}>")).startswith("250")
            assert (await client.say("RCPT TO:<ann@example.org>")).startswith("250")
            sink.has_quit.clear()
        async with asyncio.timeout(30):
            await sink.has_quit.wait()
        assert sink.mails == []


async def test_a_mail_that_a_service_posts_to_a_hook_is_answered(
    mailing: Callable[..., Any], sink: SmtpSink, worker_for: Callable[..., MailWorker]
) -> None:
    """As docs/how-to/mail.md says: a provider's worker signs what it posts, as Standard Webhooks."""
    async with mailing() as mail, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {mail.running.api_key}"}
        url = f"{mail.running.url}/rooms/room/hooks"
        async with http.post(url, json={"queue": "email"}, headers=headers) as answer:
            hook = await answer.json()
        body = json.dumps({"base64": base64.b64encode(HELLO).decode()}).encode()
        signed = sign(Scheme.STANDARD, hook["secret"], body, delivery="d1", now=time.time())
        async with mail.running.client("room", name="bot", role="agent") as room:
            worker = worker_for()
            await worker.start(room=room)
            for _ in range(2):
                posted = {"Content-Type": "application/json", **signed}
                async with http.post(hook["url"], data=body, headers=posted) as answer:
                    assert answer.status == 200
            assert (await sink.received(1)).mail.in_reply_to == "<1@example.org>"
            await worker.stop()


async def test_a_mail_goes_in_by_smtp_and_the_answer_comes_out_by_the_submission_port(
    mailing: Callable[..., Any], sink: SmtpSink
) -> None:
    relay = {"host": "127.0.0.1", "port": sink.port, "tls": "never"}
    async with mailing(mail={"submission": "127.0.0.1:0", "relay": relay}) as mail:
        await mail.add()
        smtp = SmtpConfiguration(hostname="127.0.0.1", port=mail.ports.submission_port)
        worker = MailWorker(name="bot", email_address=BOT, smtp=smtp, llm_adapter=ScriptedLLM(default="Dear Ann"))
        async with mail.running.client("room", name="bot", role="agent") as room:
            await worker.start(room=room)
            await mail.send()
            answer = await sink.received(1)
            await worker.stop()
        assert (answer.mail_from, answer.recipients) == (BOT, ("ann@example.org",))
        read: Mail = answer.mail
        assert (read.text, read.in_reply_to) == ("Dear Ann", "<1@example.org>")


async def test_mailboxes_by_rest_are_made_shown_moved_and_deleted(mailing: Callable[..., Any]) -> None:
    async with mailing(mail={"domains": ["example.com"]}) as mail:
        made = {"address": "Support@Example.com", "room": "room", "queue": "q"}
        status, shown = await mail.rest("POST", "/mailboxes", made)
        assert (status, shown["address"], shown["public"], shown["error"]) == (200, "support@example.com", False, None)
        assert (await mail.rest("POST", "/mailboxes", made))[0] == 409
        for wrong, field in (
            ({"address": "nobody"}, "address"),
            ({"address": "a@elsewhere.example"}, "address"),
            ({"address": "a+b@example.com"}, "address"),
            ({"queue": ""}, "queue"),
            ({"room": "No Room"}, "room name"),
            ({"nonsense": 1}, "nonsense"),
        ):
            status, answer = await mail.rest("POST", "/mailboxes", made | {"address": "x@example.com"} | wrong)
            assert (status, field in answer["error"]) == (400, True), (wrong, answer)
        change = {"room": "other", "queue": "q2", "public": True, "annotations": {"a": "b"}}
        assert (await mail.rest("PUT", "/mailboxes/support@example.com", change))[0] == 200
        _, listed = await mail.rest("GET", "/mailboxes")
        [entry] = listed["mailboxes"]
        assert {name: entry[name] for name in change} == change
        assert (await mail.rest("GET", "/rooms/room/mailboxes"))[1]["mailboxes"] == []
        assert len((await mail.rest("GET", "/rooms/other/mailboxes"))[1]["mailboxes"]) == 1
        assert len((await mail.rest("GET", "/mailboxes?room_id=other"))[1]["mailboxes"]) == 1
        await mail.send(to="support@example.com")
        assert len(await mail.stored("q2", "other")) == 1
        assert (await mail.rest("DELETE", "/mailboxes/SUPPORT@example.com"))[0] == 204
        assert (await mail.rest("GET", "/mailboxes/support@example.com"))[0] == 404
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
            await mail.send(to="support@example.com")


async def test_the_mailbox_of_a_suspended_tenant_waits(mailing: Callable[..., Any]) -> None:
    async with mailing() as mail:
        await mail.add()
        await mail.running.server.engines.identity.suspend_project(mail.running.key.project_id, "unpaid")
        async with Talk(mail.port) as client:
            assert (await client.begin()).startswith("450 4.2.1")


async def test_mailboxes_go_with_their_room_in_an_archive_and_addresses_stay_unique(tmp_path: Path) -> None:
    from meshhost.server.data.content import line_of_trigger, object_of, trigger_of
    from meshhost.stores.memory.triggers import MemoryTriggerStore

    store = MemoryTriggerStore(is_open=True)
    boxes = Mailboxes(store, None)  # type: ignore[arg-type]
    made = await boxes.create(RoomKey(TenantId("a"), "room"), BOT, MailboxSpec(queue="q"))
    line = line_of_trigger(made.trigger())
    again = trigger_of(object_of(line), RoomKey(TenantId("b"), "copy"), 1.0)
    assert (again.id, again.room.name) == (made.id, "copy")


async def test_ports_that_are_taken_and_wrong_settings_are_named(mailing: Callable[..., Any], sink: SmtpSink) -> None:
    for wrong, said in (
        ({"listen": f"127.0.0.1:{sink.port}"}, "mail.listen: cannot listen"),
        ({"max_bytes": 10**9}, "mail.max_bytes"),
        ({"require_tls": True}, "mail.require_tls"),
        ({"certificate_file": "/nowhere"}, "mail.certificate_file"),
    ):
        with pytest.raises(SettingsError, match=said):
            async with mailing(mail=wrong):
                pass
