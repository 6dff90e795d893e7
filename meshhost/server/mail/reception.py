"""Decides about recipients, stores mails in the queues of their mailboxes, and passes on what participants send.

The rule: 250 is said when every recipient's mail is on the disk, in its queue, or was taken by the next server. Everything that
may pass (a full queue, a quota, a failing disk) is 4xx, so that the sender keeps the mail and tries again; 5xx is said for what
will never be taken. A mail for two mailboxes of which one fails is 4xx for both, and when it comes again the other one knows it
(`Mailboxes.deliver`). LMTP answers for each.

On the submission port a participant logs in with its token, under any name. It may write as a mailbox of its own room whose
queue it may receive from: nobody writes in the name of another one. Mail for mailboxes of this server is stored at once; for
others it goes to the next server while it is received, and each answer is that server's own (`meshhost.mail.delivery.Relay`).
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime, getaddresses
from typing import Any, Final

from aiosmtpd.smtp import AuthResult, LoginPassword

from meshhost.errors import (
    AccessDeniedError,
    InvalidRequestError,
    LimitExceededError,
    MeshhostError,
    NotFoundError,
    QuotaExceededError,
    StorageFullError,
    TenantSuspendedError,
    TokenError,
    TooLargeError,
)
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey
from meshhost.identity.tokens import ParticipantToken
from meshhost.mail.addresses import is_address
from meshhost.mail.delivery import Relay
from meshhost.mail.parsing import Mail, mail_of
from meshhost.quotas.rates import Rates
from meshhost.server.config import MailConfig
from meshhost.server.mail.crowd import Crowd
from meshhost.triggers.mailboxes import Mailbox, Mailboxes

__all__ = ["REFUSALS", "Handler", "Login", "Part"]

logger = logging.getLogger(__name__)

REFUSALS: Final = (
    *("connections", "rate", "memory", "slow", "size", "bare line end", "error", "guessing", "recipients"),
    *("unknown recipient", "suspended", "quota", "storage", "relaying", "login", "sender", "loop"),
)
"""Reasons in the metric `meshhost_mail_refused_total`."""

_MOST_HOPS = 100
_FROM = re.compile(rb"^from[ \t]*:", re.IGNORECASE | re.MULTILINE)

Login = Callable[[str], tuple[RoomKey, ParticipantToken]]
"""Returns whose token a text is, or raises TokenError or another MeshhostError."""


@dataclass(slots=True)
class Part:
    """What belongs to one mail while it is received: the mailboxes of its recipients, and the connection to the next server."""

    mailboxes: list[tuple[str, Mailbox]] = field(default_factory=list)
    relay: Relay | None = None
    relayed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Member:
    """A participant that has logged in."""

    room: RoomKey
    name: str
    scope: ApiScope


class Handler:
    """The decisions for one connection; make one for each. `count_*` are those of ServerMetrics."""

    def __init__(
        self,
        mailboxes: Mailboxes,
        config: MailConfig,
        crowd: Crowd,
        *,
        login: Login,
        rates: Rates | None,
        count: Callable[[str], None],
        refused: Callable[[str], None],
        relayed: Callable[[str], None],
        address: str = "",
        needs_tls_for_login: bool = True,
        is_submission: bool = False,
        is_lmtp: bool = False,
    ) -> None:
        self._mailboxes = mailboxes
        self._config = config
        self._crowd = crowd
        self._login = login
        self._rates = rates
        self._count = count
        self.refused = refused
        self._relayed = relayed
        self.address = address
        self.needs_tls_for_login = needs_tls_for_login
        self._is_submission = is_submission
        self._is_lmtp = is_lmtp
        self._member: _Member | None = None
        self._part = Part()

    def log_in(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        """Check a participant token, which is the password."""
        if not isinstance(data, LoginPassword) or self._crowd.is_guessing(_peer(session)):
            return AuthResult(success=False, handled=False)
        try:
            room, token = self._login(data.password.decode())
        except (MeshhostError, UnicodeDecodeError) as error:
            self._crowd.count_unknown(_peer(session))
            self.refused("login")
            text = str(error) if isinstance(error, TokenError | TenantSuspendedError) else "the token is not accepted"
            return AuthResult(success=False, handled=False, message=f"535 5.7.8 {_ascii(text)}")
        self._member = _Member(room, token.name, token.get_api_grant() or ApiScope())
        return AuthResult(success=True)

    async def handle_EHLO(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, hostname: str, answers: list[str]
    ) -> list[str]:
        """Greet; enhanced codes are used, and a login is offered only where one is taken."""
        session.host_name = hostname
        lines = [each for each in answers if each.strip() != "250-AUTH"]
        return [*lines[:-1], "250-ENHANCEDSTATUSCODES", "250-PIPELINING", lines[-1]]

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        """Begin a mail. A participant writes as one of its mailboxes."""
        await self.close()
        sender = "" if address in ("<>", "") else address
        if sender and not is_address(sender):
            return "553 5.1.7 the address of the sender is malformed"
        if self._is_submission and (refusal := await self._refusal_of_sender(sender)) is not None:
            self.refused("sender")
            return refusal
        # The library takes an empty one for no MAIL at all.
        envelope.mail_from = sender or "<>"
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        """Take a recipient that has a mailbox, or, of a participant, one that the next server takes."""
        peer = _peer(session)
        if len(envelope.rcpt_tos) >= self._config.max_recipients:
            self.refused("recipients")
            return "452 4.5.3 too many recipients: send the others another mail"
        if not self._is_submission and self._crowd.is_guessing(peer):
            self.refused("guessing")
            return "450 4.7.1 too many unknown recipients: try again later"
        try:
            mailbox = await self._mailboxes.find(address) if is_address(address) else None
            if mailbox is not None and self._rates is not None:
                self._rates.take(mailbox.room.tenant)
        except (MeshhostError, OSError) as error:
            return self._refusal(error)
        if mailbox is not None:
            self._part.mailboxes.append((address, mailbox))
        else:
            refusal = await self._relay_to(envelope, address)
            if refusal is not None:
                if not self._is_submission:
                    self._crowd.count_unknown(peer)
                return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Store and pass on a mail; return the answer, for LMTP one for each recipient."""
        content: bytes = envelope.original_content
        sender = "" if envelope.mail_from == "<>" else envelope.mail_from
        try:
            mail, authors = await asyncio.to_thread(_headers_of, content)
            refusal = await self._refusal_of(mail, authors, sender)
            if refusal is not None:
                return self._for_each(refusal)
            answers = [
                await self._store(session, mailbox, recipient, sender, content)
                for recipient, mailbox in self._part.mailboxes
            ]
            if self._is_lmtp:
                return "\r\n".join(answers)
            # 4xx is said if any may still be stored: what is stored already is known when it comes again.
            failed = sorted(each for each in answers if not each.startswith("250"))
            return failed[0] if failed else await self._pass_on(content, answers)
        finally:
            await self.close()

    async def handle_RSET(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        """Forget the mail that was begun."""
        await self.close()
        return "250 2.0.0 OK"

    async def handle_VRFY(self, server: Any, session: Any, envelope: Any, address: str) -> str:  # noqa: N802
        """Tell nobody who is here."""
        return "252 2.1.5 send a mail, and see"

    async def close(self) -> None:
        """End the connection to the next server. Idempotent."""
        part, self._part = self._part, Part()
        if part.relay is not None:
            await part.relay.close()

    async def _store(self, session: Any, mailbox: Mailbox, recipient: str, sender: str, content: bytes) -> str:
        headers = self._trace(session, recipient, sender)
        try:
            message_id = await self._mailboxes.deliver(
                mailbox, content, mail_from=sender, recipient=recipient, headers=headers
            )
        except (MeshhostError, OSError) as error:
            return self._refusal(error)
        self._count("mailbox")
        fields = {"tenant": mailbox.room.tenant, "room": mailbox.room.name, "message_id": message_id}
        logger.info("mail received", extra=fields)
        return f"250 2.0.0 stored as message {message_id}"

    async def _relay_to(self, envelope: Any, address: str) -> str | None:
        """Name a recipient to the next server; return what to answer when it is not taken."""
        if self._member is None or self._config.relay is None:
            self.refused("unknown recipient" if self._member is None else "relaying")
            text = "no mailbox here" if self._member is None else "no mailbox here, and mail is not relayed"
            return f"550 5.1.1 {text}"
        if not is_address(address):
            return "553 5.1.3 the address is malformed"
        if self._part.relay is None:
            sender = "" if envelope.mail_from == "<>" else envelope.mail_from
            self._part.relay = Relay(self._config.relay, sender)
        outcome = await self._part.relay.add(address)
        if outcome.status == "delivered":
            self._part.relayed.append(address)
            return None
        self._relayed(outcome.status)
        return f"{outcome.code or 451} {_ascii(outcome.text)}"

    async def _pass_on(self, content: bytes, answers: Sequence[str]) -> str:
        if self._part.relay is None or not self._part.relayed:
            return answers[-1]
        if self._config.dkim is not None:
            content = await asyncio.to_thread(self._config.dkim.sign, content)
        outcome = await self._part.relay.send(content)
        for _ in self._part.relayed:
            self._relayed(outcome.status)
        if outcome.status == "delivered":
            self._count("relay")
        return f"{outcome.code or 451} {_ascii(outcome.text)}"

    async def _refusal_of(self, mail: Mail, from_lines: int, sender: str) -> str | None:
        if len(mail.all("received")) > _MOST_HOPS:
            self.refused("loop")
            return "554 5.4.6 the mail goes in circles"
        if self._is_submission:
            # All that a mail program might show as its author.
            authors = {address for _, address in getaddresses(mail.all("from")) if address}
            if not authors:
                self.refused("sender")
                return "550 5.6.0 the mail has no From"
            for each in sorted(authors - {sender}):
                if (refusal := await self._refusal_of_sender(each)) is not None:
                    self.refused("sender")
                    return refusal
            if from_lines > 1:
                self.refused("sender")
                return "550 5.6.0 the mail has more than one From"
        return None

    async def _refusal_of_sender(self, address: str) -> str | None:
        """Why this participant must not write in the name of an address; None when it may."""
        member = self._member
        if member is None:
            return "530 5.7.0 log in with a participant token first"
        if not address:
            return "553 5.1.7 a participant writes as a mailbox of its room"
        try:
            mailbox = await self._mailboxes.get(member.room.tenant, address, room=member.room.name)
        except NotFoundError:
            return "553 5.7.1 the sender is no mailbox of your room: make one with `meshhost mailbox create`"
        except OSError as error:
            return self._refusal(error)
        queues = member.scope.queues
        if queues is None or not queues.can_receive(mailbox.queue.name):
            return "553 5.7.1 your token does not grant the queue of this mailbox"
        return None

    def _refusal(self, error: Exception) -> str:
        """The answer for what could not be looked up or stored."""
        match error:
            case TooLargeError():
                reason, answer = "size", "552 5.3.4 the mail is too large for the queue"
            case StorageFullError():
                reason, answer = "storage", "452 4.3.1 no room: try again later"
            case QuotaExceededError() | LimitExceededError():
                reason, answer = "quota", "452 4.2.2 the mailbox is full: try again later"
            case TenantSuspendedError() | TokenError():
                reason, answer = "suspended", "450 4.2.1 the mailbox takes nothing at present"
            case NotFoundError():
                reason, answer = "unknown recipient", "550 5.1.1 no mailbox here"
            case InvalidRequestError() | AccessDeniedError():
                reason, answer = "error", "451 4.3.0 the mailbox is set up wrongly: try again later"
            case _:
                reason, answer = "storage", "451 4.3.0 not stored: try again later"
        self.refused(reason)
        logger.warning("a mail is refused", extra={"reason": f"{type(error).__name__}: {error}", "answer": answer[:3]})
        return answer

    def _for_each(self, answer: str) -> str:
        return "\r\n".join([answer] * max(len(self._part.mailboxes), 1)) if self._is_lmtp else answer

    def _trace(self, session: Any, recipient: str, sender: str) -> bytes:
        """What the last server on the way puts before a mail (RFC 5321): rules against loops read it."""
        protocol = "LMTP" if self._is_lmtp else f"ESMTP{'S' if session.ssl else ''}{'A' if self._member else ''}"
        greeting = "".join(each for each in str(session.host_name or "") if each.isalnum() or each in ".-:[]_")[:255]
        by = self._config.hostname or "meshhost"
        lines = [
            f"Return-Path: <{sender}>",
            f"Delivered-To: {recipient}",
            f"Received: from {greeting or 'unknown'} ([{_peer(session)}]) by {by} with {protocol};",
            f"\t{format_datetime(datetime.now(UTC))}",
        ]
        return "".join(f"{line}\r\n" for line in lines).encode()


def _headers_of(content: bytes) -> tuple[Mail, int]:
    """The mail's headers, and how many lines above its text a mail program might take for a From.

    The parser ends with the first line that is no header; other programs read on, and find a From that nobody has checked.
    """
    import email.parser
    import email.policy

    head = content.partition(b"\r\n\r\n")[0]
    parser = email.parser.BytesHeaderParser(policy=email.policy.compat32)
    return mail_of(parser.parsebytes(head + b"\r\n\r\n")), len(_FROM.findall(head))


def _peer(session: Any) -> str:
    peer = session.peer
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def _ascii(text: str) -> str:
    return "".join(each if " " <= each <= "~" else "?" for each in text)[:400]
