"""One SMTP or LMTP connection: aiosmtpd's, with what it lacks against clients that are slow, endless or malicious.

aiosmtpd speaks the protocol; it had no release since 2024 and trusts its clients in some ways. Here: connections of one address
and in total are bounded before a task is made; a mail must arrive at some bytes a second, so that one byte a minute holds
nothing; a line without an end is cut off at the size of a mail, where aiosmtpd would keep it in memory; all mails that are
being received share a budget of memory; errors of ours are 451 without their text, so that the sender tries again; limits of
commands are counted for each connection, where aiosmtpd shares one table. A mail with a bare CR or LF is refused, not repaired:
servers that disagree about the end of a mail can be made to take one mail for two (SMTP smuggling).

Tasks: aiosmtpd makes one for each connection. It is cancelled when the connection ends, and by the listener, which waits for
it.
"""

import asyncio
import collections
import logging
from typing import Any

from aiosmtpd.smtp import SMTP

from meshhost.server.config import MailConfig
from meshhost.server.mail.crowd import Crowd
from meshhost.server.mail.reception import Handler

__all__ = ["LmtpConnection", "SmtpConnection", "silence_library"]

logger = logging.getLogger(__name__)

_COMMAND_BYTES = 1024
# Of one connection: a session of a mail server that sends many mails stays below.
_COMMANDS = 1000
_BESIDE_A_MAIL = 64 * 1024
_TOO_MANY = b"421 4.7.0 too many connections: try again later\r\n"
_TOO_SLOW = b"421 4.4.2 too slow: closing the connection\r\n"
_TOO_LARGE = b"552 5.3.4 the mail is too large\r\n"
_NO_ROOM = b"452 4.3.1 busy with other mails: try again later\r\n"


def silence_library() -> None:
    """Keep aiosmtpd from logging: it writes addresses and commands of every connection."""
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)


class SmtpConnection(SMTP):
    """A connection that `handler` decides about. `needs_login`: it is to the submission port."""

    def __init__(
        self, handler: Handler, config: MailConfig, crowd: Crowd, *, needs_login: bool, open_now: set["SmtpConnection"]
    ) -> None:
        self._config = config
        self._crowd = crowd
        self._open_now = open_now
        self._address = ""
        self._is_counted = False
        self._is_over = False
        self._is_busy = False
        self._data_since: float | None = None
        self._data_bytes = 0
        self._is_receiving = False
        # The library's is of the class, and grows with every greeting of anybody.
        self.command_size_limits = collections.defaultdict(lambda: _COMMAND_BYTES)
        super().__init__(
            handler,
            data_size_limit=config.max_bytes,
            enable_SMTPUTF8=True,
            hostname=config.hostname,
            ident="meshhost",
            tls_context=config.tls,
            require_starttls=config.require_tls and config.tls is not None,
            timeout=config.idle_seconds,
            auth_require_tls=handler.needs_tls_for_login,
            auth_exclude_mechanism=None if needs_login else ["LOGIN", "PLAIN"],
            authenticator=handler.log_in,
            command_call_limit=_COMMANDS,
            loop=asyncio.get_running_loop(),
        )
        # Given to the library, it warns of a login without TLS, which only programs of this machine may do.
        self._auth_required = needs_login

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """What serves it, once it is connected."""
        return self._handler_coroutine

    @property
    def address(self) -> str:
        """Where it comes from."""
        return self._address

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once when there are too many; also called when TLS begins."""
        if self._original_transport is None:
            peer = transport.get_extra_info("peername")
            self._address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
            if not self._crowd.enter(self._address):
                self._is_over = True
                self.handler.refused("connections")
                self._end(transport, _TOO_MANY)
                return
            self._is_counted = True
            self._open_now.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Count it out."""
        if self._is_counted:
            self._is_counted = False
            self._open_now.discard(self)
            self._crowd.leave(self._address)
            self._release()
        if self.session is not None and self._timeout_handle is not None:
            super().connection_lost(error)

    def eof_received(self) -> bool | None:
        """The client has ended."""
        return False if self.session is None else super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Pass on what came, while it is within the limits."""
        if self._is_over:
            return None
        if self._is_receiving:
            if self._data_bytes + len(data) > self._config.max_bytes + _BESIDE_A_MAIL:
                return self._cut_off("size", _TOO_LARGE)
            if not self._crowd.buffer(len(data)):
                return self._cut_off("memory", _NO_ROOM)
            self._data_bytes += len(data)
        super().data_received(data)
        return None

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - the library's name
        """Receive a mail, when the address may send another one."""
        if self.envelope is not None and self.envelope.rcpt_tos and not self._crowd.may_send(self._address):
            self.handler.refused("rate")
            await self.push("451 4.7.1 too many mails in a minute: try again later")
            return
        self._is_receiving, self._data_since = True, self.loop.time()
        try:
            await super().smtp_DATA(arg)
        finally:
            self._is_receiving, self._data_since = False, None
            self._release()
            self._reset_timeout()

    async def _call_handler_hook(self, command: str, *args: Any) -> Any:
        # What we do takes its own time, which is bounded elsewhere: the client is not slow meanwhile.
        self._is_busy = True
        try:
            if command == "DATA" and self.envelope is not None and _has_bare(self.envelope.original_content or b""):
                self.handler.refused("bare line end")
                return "550 5.6.0 a line ends with a bare CR or LF, which RFC 5321 forbids"
            return await super()._call_handler_hook(command, *args)
        finally:
            self._is_busy = False

    async def _handle_client(self) -> None:
        try:
            await super()._handle_client()
        finally:
            # Also of a client that is gone in the middle of a mail: the next server must not wait for the rest.
            await self.handler.close()

    async def handle_exception(self, error: Exception) -> str:
        """Log a fault of ours; the sender is to try again."""
        logger.error("a mail was not received because of an error", exc_info=error)
        self.handler.refused("error")
        return "451 4.3.0 the server has failed: try again later"

    @property
    def handler(self) -> Handler:
        """What decides."""
        handler: Handler = self.event_handler
        return handler

    def _timeout_cb(self) -> None:
        if self._is_busy or self._is_fast_enough():
            self._reset_timeout()
        else:
            self._cut_off("slow", _TOO_SLOW)

    def _is_fast_enough(self) -> bool:
        if self._data_since is None:
            return False
        seconds = self.loop.time() - self._data_since - self._config.idle_seconds
        return self._data_bytes > max(seconds, 1.0) * self._config.bytes_per_second

    def _cut_off(self, reason: str, answer: bytes) -> None:
        self._is_over = True
        self.handler.refused(reason)
        if self.transport is not None:
            self._end(self.transport, answer)

    def _release(self) -> None:
        self._crowd.release(self._data_bytes)
        self._data_bytes = 0

    @staticmethod
    def _end(transport: Any, answer: bytes) -> None:
        transport.write(answer)
        transport.close()


def _has_bare(content: bytes) -> bool:
    # Counting takes a hundredth of the time of a regular expression, which would hold up everybody for a large mail.
    pairs = content.count(b"\r\n")
    return content.count(b"\n") != pairs or content.count(b"\r") != pairs


class LmtpConnection(SmtpConnection):
    """LMTP: the greeting is LHLO, and a mail is answered for each recipient (the handler does)."""

    async def smtp_LHLO(self, arg: str) -> None:  # noqa: N802 - the library's name
        """The greeting."""
        await super().smtp_EHLO(arg)

    async def smtp_EHLO(self, arg: str) -> None:  # noqa: N802 - the library's name
        """Not a greeting of LMTP."""
        await self.push("500 5.5.1 expected LHLO")

    async def smtp_HELO(self, arg: str) -> None:  # noqa: N802 - the library's name
        """Not a greeting of LMTP."""
        await self.push("500 5.5.1 expected LHLO")
