"""Opens the mail ports of a room server, and closes them: new connections first, then those that are there.

A connection that is ended while a mail is being stored was not answered: its sender sends the mail again, and the queue knows
it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from meshhost.errors import SettingsError
from meshhost.loopback import is_loopback
from meshhost.quotas.rates import Rates
from meshhost.server.config import MailConfig
from meshhost.server.metrics import ServerMetrics
from meshhost.triggers.mailboxes import Mailboxes

if TYPE_CHECKING:
    from meshhost.server.mail.connection import SmtpConnection
    from meshhost.server.mail.reception import Login

__all__ = ["MailPorts"]

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


class MailPorts:
    """The mail ports that `config` names; an async context manager. `login` says whose token a password is."""

    def __init__(
        self,
        config: MailConfig,
        mailboxes: Mailboxes,
        *,
        login: "Login",
        rates: Rates | None,
        metrics: ServerMetrics,
    ) -> None:
        self._config = config
        self._mailboxes = mailboxes
        self._login = login
        self._rates = rates
        self._metrics = metrics
        self._stack = AsyncExitStack()
        self._servers: dict[str, asyncio.Server] = {}
        self._open: set[SmtpConnection] = set()

    @property
    def port(self) -> int | None:
        """The port that takes mail for mailboxes, while it does."""
        return self._port_of("listen")

    @property
    def submission_port(self) -> int | None:
        """The port that takes mail of participants, while it does."""
        return self._port_of("submission")

    async def __aenter__(self) -> "MailPorts":
        """Listen. Raises SettingsError when an address cannot be listened on; nothing is left running then."""
        config = self._config
        if config.listen is None and config.submission is None:
            return self
        if find_spec("aiosmtpd") is None:
            raise SettingsError("mail: taking mail needs a library more: pip install 'meshhost[mail]'")
        from meshhost.server.mail.connection import silence_library

        silence_library()
        make = self._factory()
        try:
            for name, address in (("listen", config.listen), ("submission", config.submission)):
                if address is not None:
                    self._servers[name] = await self._listen(name, address, make(name, address[0]))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the ports, end the connections and wait for them, within a bounded time."""
        servers, self._servers = self._servers, {}
        for server in servers.values():
            server.close()
        tasks = [each.task for each in self._open if each.task is not None]
        for connection in list(self._open):
            if connection.transport is not None:
                connection.transport.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)

    async def _listen(self, name: str, address: tuple[str, int], factory: Callable[[], Any]) -> asyncio.Server:
        host, port = address
        try:
            server = await asyncio.get_running_loop().create_server(factory, host, port)
        except OSError as error:
            raise SettingsError(f"mail.{name}: cannot listen on {host}:{port}: {error.strerror or error}") from None
        logger.info("taking mail", extra={"kind": name, "port": server.sockets[0].getsockname()[1]})
        return server

    def _factory(self) -> Callable[[str, str], Callable[[], Any]]:
        from meshhost.server.mail.connection import LmtpConnection, SmtpConnection
        from meshhost.server.mail.crowd import Crowd
        from meshhost.server.mail.reception import Handler

        crowd, metrics = Crowd(self._config), self._metrics

        def for_port(name: str, host: str) -> Callable[[], SmtpConnection]:
            is_submission = name == "submission"
            is_lmtp = not is_submission and self._config.protocol == "lmtp"
            kind = LmtpConnection if is_lmtp else SmtpConnection

            def connect() -> SmtpConnection:
                handler = Handler(
                    self._mailboxes,
                    self._config,
                    crowd,
                    login=self._login,
                    rates=self._rates,
                    count=metrics.count_mail,
                    refused=metrics.count_refused_mail,
                    relayed=metrics.count_relayed_mail,
                    # A token must not cross a network without TLS.
                    needs_tls_for_login=not is_loopback(host),
                    is_submission=is_submission,
                    is_lmtp=is_lmtp,
                )
                return kind(handler, self._config, crowd, needs_login=is_submission, open_now=self._open)

            return connect

        return for_port

    def _port_of(self, name: str) -> int | None:
        server = self._servers.get(name)
        return None if server is None else int(server.sockets[0].getsockname()[1])
