"""Hands a mail to the next SMTP server and says for each recipient what became of it.

`deliver` makes one connection, sends the mail once and returns an `Outcome` for every recipient: *delivered* when the server
has taken it, *failed* when it never will (5xx), *deferred* when another try makes sense (4xx, and everything that may pass: no
connection, no TLS, a refused login, a server that stops talking). Between the end of the mail and the answer of the server
nobody can know: that is deferred, and may be a double, which has the same Message-ID. It never raises for what a server does.

A password is sent over TLS only, or to a server on this machine. aiosmtplib, of the extra `mail`, has its home here.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from meshhost.errors import SettingsError
from meshhost.loopback import is_loopback

if TYPE_CHECKING:
    import aiosmtplib

__all__ = ["Outcome", "Relay", "SmtpServer", "check_library", "deliver"]

_SECONDS = 60.0
# The end of a mail may be answered late: the server checks it for viruses meanwhile.
_DATA_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A server that takes mail. `tls`: `always` from the first byte (port 465), by STARTTLS or not at all (`required`), `auto`
    by STARTTLS when it is offered, `never`. With `needs_login` false a password is used only where the server asks for one.
    """

    hostname: str
    port: int = 587
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    local_hostname: str | None = None
    tls: Literal["always", "required", "auto", "never"] = "auto"
    verify: bool = True
    needs_login: bool = True
    seconds: float = _SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mail for one recipient. `code` is that of SMTP, 0 when the server did not say."""

    recipient: str
    status: Literal["delivered", "deferred", "failed"]
    code: int = 0
    text: str = ""

    def to_json(self) -> dict[str, str | int]:
        """Return it as JSON."""
        return {"recipient": self.recipient, "status": self.status, "code": self.code, "text": self.text}


def check_library() -> None:
    """Raise SettingsError when aiosmtplib is not installed."""
    if find_spec("aiosmtplib") is None:
        raise SettingsError("sending mail needs a library more: pip install 'meshhost[mail]'")


async def deliver(server: SmtpServer, mail_from: str, recipients: Sequence[str], content: bytes) -> list[Outcome]:
    """Send a mail; return the outcome for each recipient, in order. `mail_from` "" is that of a bounce.

    Raises SettingsError when aiosmtplib is not installed.
    """
    check_library()
    import aiosmtplib

    try:
        async with _connected(server) as client:
            return await _send(client, mail_from, recipients, content)
    except aiosmtplib.SMTPResponseException as error:
        # Of connecting, TLS or the login: another try may find it in order, so a mail is not given up for it.
        return [Outcome(each, "deferred", error.code, _text(error.message)) for each in recipients]
    except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as error:
        return [Outcome(each, "deferred", 0, _text(str(error) or type(error).__name__)) for each in recipients]


@asynccontextmanager
async def _connected(server: SmtpServer) -> AsyncIterator["aiosmtplib.SMTP"]:
    import aiosmtplib

    context = ssl.create_default_context()
    if not server.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = aiosmtplib.SMTP(
        hostname=server.hostname,
        port=server.port,
        timeout=server.seconds,
        use_tls=server.tls == "always",
        start_tls={"required": True, "auto": None}.get(server.tls, False),
        tls_context=context,
        local_hostname=server.local_hostname,
    )
    await client.connect()
    try:
        await _log_in(client, server)
        yield client
    finally:
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, asyncio.TimeoutError):
            await client.quit(timeout=5)
        client.close()


async def _log_in(client: "aiosmtplib.SMTP", server: SmtpServer) -> None:
    if server.password is None or not server.username:
        return
    await client._ehlo_or_helo_if_needed()  # noqa: SLF001 - it has no public name
    if not client.supported_auth_methods and not server.needs_login:
        return
    is_safe = client.get_transport_info("sslcontext") is not None
    if not is_safe and not is_loopback(_peer(client) or server.hostname):
        raise ValueError("the server offers no TLS, and a password must not be sent without it")
    if client.supported_auth_methods:
        await client.login(server.username, server.password)
    else:
        raise ValueError("the server takes no login, and a password is set")


def _peer(client: "aiosmtplib.SMTP") -> str:
    peer = client.get_transport_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


async def _send(client: "aiosmtplib.SMTP", mail_from: str, recipients: Sequence[str], content: bytes) -> list[Outcome]:
    import aiosmtplib

    options = []
    if client.supports_extension("size"):
        options.append(f"size={len(content)}")
    if not content.isascii() and client.supports_extension("8bitmime"):
        options.append("body=8bitmime")
    is_international = not all(each.isascii() for each in (mail_from, *recipients))
    if is_international:
        if not client.supports_extension("smtputf8"):
            return [Outcome(each, "failed", 553, "the server takes no addresses like this") for each in recipients]
        options.append("smtputf8")
    encoding = "utf-8" if is_international else "ascii"
    try:
        await client.mail(mail_from, options=options, encoding=encoding)
    except aiosmtplib.SMTPResponseException as error:
        return [_refused(each, error) for each in recipients]
    outcomes: dict[str, Outcome] = {}
    for each in recipients:
        try:
            await client.rcpt(each, encoding=encoding)
        except aiosmtplib.SMTPResponseException as error:
            outcomes[each] = _refused(each, error)
    accepted = [each for each in recipients if each not in outcomes]
    if accepted:
        outcomes |= await _data(client, accepted, content)
    return [outcomes[each] for each in recipients]


class Relay:
    """A mail that is passed on to the next server while it is received: each reply is that server's own.

    `add` names a recipient, `send` hands over the mail, `close` ends the connection in any case. Errors of the connection
    become replies of 451, so that the sender tries again.
    """

    def __init__(self, server: SmtpServer, mail_from: str) -> None:
        self._server = server
        self._mail_from = mail_from
        self._stack = AsyncExitStack()
        self._client: aiosmtplib.SMTP | None = None

    async def add(self, recipient: str) -> Outcome:
        """Name a recipient to the server; connects for the first one."""
        return await self._asked(recipient, self._add)

    async def send(self, content: bytes) -> Outcome:
        """Hand over the mail for all recipients that the server has taken."""

        async def data(_: str) -> Outcome:
            assert self._client is not None
            return (await _data(self._client, [""], content))[""]

        return await self._asked("", data)

    async def close(self) -> None:
        """End the connection. Idempotent."""
        await self._stack.aclose()

    async def _add(self, recipient: str) -> Outcome:
        import aiosmtplib

        if self._client is None:
            try:
                self._client = await self._stack.enter_async_context(_connected(self._server))
            except aiosmtplib.SMTPResponseException as error:
                # The server refuses us, not this sender or mail: that is not for good.
                text = _text(f"the next server refuses us: {error.message}")
                return Outcome(recipient, "deferred", 451, text)
            await self._client.mail(self._mail_from, encoding="utf-8")
        answer = await self._client.rcpt(recipient, encoding="utf-8")
        return Outcome(recipient, "delivered", answer.code, _text(answer.message))

    async def _asked(self, recipient: str, ask: Callable[[str], Awaitable[Outcome]]) -> Outcome:
        import aiosmtplib

        try:
            return await ask(recipient)
        except aiosmtplib.SMTPResponseException as error:
            return _refused(recipient, error)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            return Outcome(recipient, "deferred", 451, f"the next server is not reached: {type(error).__name__}")


async def _data(client: "aiosmtplib.SMTP", accepted: Sequence[str], content: bytes) -> dict[str, Outcome]:
    import aiosmtplib

    try:
        answer = await client.data(content, timeout=_DATA_SECONDS)
    except aiosmtplib.SMTPResponseException as error:
        return {each: _refused(each, error) for each in accepted}
    except (aiosmtplib.SMTPException, OSError) as error:
        # It may have been taken.
        text = _text(str(error) or type(error).__name__)
        return {each: Outcome(each, "deferred", 0, f"no answer after the mail was sent: {text}") for each in accepted}
    return {each: Outcome(each, "delivered", answer.code, _text(answer.message)) for each in accepted}


def _refused(recipient: str, error: "aiosmtplib.SMTPResponseException") -> Outcome:
    status: Literal["deferred", "failed"] = "failed" if 500 <= error.code <= 599 else "deferred"
    # The library has codes of its own for what is no answer of SMTP.
    code = error.code if 400 <= error.code <= 599 else 0
    return Outcome(recipient, status, code, _text(error.message))


def _text(message: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in message).split())[:500]
