"""An SMTP server on a free port of this machine that keeps the mails it takes, and answers as a test says.

`async with SmtpSink() as sink`: `sink.mails` are the mails that were taken, `await sink.received(n)` waits for the n-th.
`answers` has the replies to RCPT by recipient, `data_answers` those to the next DATA commands; each is used once, then 250 is
the answer.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP

from meshhost.mail.parsing import Mail, parse_mail

__all__ = ["SmtpSink", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """A mail that was taken."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)

    @property
    def mail(self) -> Mail:
        return parse_mail(self.content)


class SmtpSink:
    def __init__(self, *, port: int = 0, **options: Any) -> None:
        self.port = port
        self._options = options
        self.mails: list[Taken] = []
        self.tries: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.answers: dict[str, list[str]] = {}
        self.data_answers: list[str] = []
        self.on_data: Any = None
        self._changed = asyncio.Condition()
        self._transports: set[asyncio.Transport] = set()

    async def __aenter__(self) -> "SmtpSink":
        loop = asyncio.get_running_loop()

        def make() -> SMTP:
            return SMTP(
                self,
                hostname="sink.example",
                loop=loop,
                auth_require_tls=False,
                authenticator=self._log_in,
                **self._options,
            )

        self._server = await loop.create_server(make, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "SMTP._handle_client"]  # type: ignore[union-attr]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _log_in(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        from aiosmtpd.smtp import AuthResult

        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        async with self._changed:
            self.tries.append(address)
            self._changed.notify_all()
        waiting = self.answers.get(address)
        if waiting:
            return waiting.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.on_data is not None:
            answer = await self.on_data(envelope)
            if answer is not None:
                return str(answer)
        if self.data_answers:
            return self.data_answers.pop(0)
        async with self._changed:
            mail_from = "" if envelope.mail_from == "<>" else envelope.mail_from
            self.mails.append(Taken(mail_from, tuple(envelope.rcpt_tos), envelope.original_content))
            self._changed.notify_all()
        return "250 taken"

    async def received(self, number: int, *, seconds: float = 30.0) -> Taken:
        """Wait for the mail of this number, the first one is 1."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.mails) >= number)
        return self.mails[number - 1]

    async def tried(self, number: int, *, seconds: float = 30.0) -> None:
        """Wait for so many recipients to have been named."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.tries) >= number)
