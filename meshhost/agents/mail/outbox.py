"""Mail on its way out: a queue of the room, from which each recipient's mail is handed to the SMTP server.

An answer is saved in the room's storage, and one message for each recipient is put into the outbox, all in one commit; each
names the file and the recipient, and its id is made of the Message-ID and the recipient, so putting them there again adds
nothing. The consumer here tries each until the server has taken it (*delivered*) or says that it never will (*failed*, 5xx).
Everything else raises and is tried again by the queue, with growing pauses over days. What became of a recipient is the result
of its message: `meshhost queue list`, or `room.queues.get`.

A crash between the server's answer and the ack sends the mail once more, with the same Message-ID: SMTP allows no better.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meshhost.errors import InvalidRequestError, NotFoundError, RoomError
from meshhost.mail.addresses import is_address
from meshhost.mail.delivery import Outcome, SmtpServer, deliver
from meshhost.room.consuming import QueueConsumer
from meshhost.room.services.queues import LeasedMessage, NewMessage

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["MailDeferredError", "Outbox"]

logger = logging.getLogger(__name__)

_AT_ONCE = 4
# About five days with the pauses below, as long as mail servers try.
MAX_ATTEMPTS = 40
RETRY_SECONDS = 60.0
MAX_RETRY_SECONDS = 4 * 3600.0
_RESULT_SECONDS = 7 * 24 * 3600.0


class MailDeferredError(RoomError):
    """The SMTP server did not take a mail, and may take it later. `outcome` is what it said."""

    def __init__(self, outcome: Outcome) -> None:
        said = f"{outcome.code} {outcome.text}".strip() if outcome.code else outcome.text
        super().__init__(f"not sent yet: {said}")
        self.outcome = outcome


class Outbox:
    """The outbox `queue` of `room`, and what sends from it to `server`."""

    def __init__(
        self, *, room: "RoomClient", queue: str, server: SmtpServer, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._room = room
        self._queue = queue
        self._server = server
        self._retry_seconds = retry_seconds
        self._consumer = QueueConsumer(room=room, queue=queue, process=self._process, concurrency=_AT_ONCE)

    @property
    def is_sending(self) -> bool:
        """Whether a mail is being sent."""
        return bool(self._consumer.processing)

    async def post(self, *, path: str, message_id: str, mail_from: str, recipients: Sequence[str]) -> list[str]:
        """Put a saved mail (the file `path`) in for each recipient; return the ids of their messages. Raises RoomError."""
        if not recipients:
            raise InvalidRequestError("recipients", "expected at least one")
        messages = [
            NewMessage(
                {"path": path, "message_id": message_id, "from": mail_from, "to": each},
                id=f"mail:{hashlib.sha256(f'{message_id} {each}'.encode()).hexdigest()}",
            )
            for each in dict.fromkeys(recipients)
        ]
        return list(await self._room.queues.send_many(self._queue, messages))

    def drain(self) -> None:
        """Begin no further mail."""
        self._consumer.drain()

    async def run(self) -> None:
        """Send until drained. Raises RoomError when the room is lost for good or the token does not grant the queue."""
        await self._configure()
        await self._consumer.run()

    async def _configure(self) -> None:
        """Give the queue the patience of a mail server, when nobody has set it."""
        queues = self._room.queues
        try:
            await queues.open(name=self._queue)
            settings = await queues.settings(self._queue)
            if settings.max_attempts is None and settings.retry_seconds is None:
                await queues.configure(
                    self._queue,
                    max_attempts=MAX_ATTEMPTS,
                    retry_seconds=self._retry_seconds,
                    max_retry_seconds=max(self._retry_seconds, MAX_RETRY_SECONDS),
                    result_ttl=_RESULT_SECONDS,
                )
        except RoomError as error:
            logger.warning(
                "the outbox keeps the usual retries of queues", extra={"queue": self._queue, "reason": str(error)}
            )

    async def _process(self, leased: LeasedMessage) -> Any:
        path, mail_from, recipient, message_id = _read(leased.message)
        try:
            content = (await self._room.storage.download(path=path)).data
        except NotFoundError:
            outcome = Outcome(recipient, "failed", 0, "the mail was deleted from the room's storage")
        else:
            [outcome] = await deliver(self._server, mail_from, [recipient], content)
        fields = {"queue": self._queue, "mail": message_id, "code": outcome.code}
        if outcome.status == "deferred":
            logger.info("mail deferred", extra=fields | {"reason": outcome.text})
            raise MailDeferredError(outcome)
        if outcome.status == "failed":
            logger.warning("mail refused for good", extra=fields | {"reason": outcome.text})
        else:
            logger.info("mail sent", extra=fields)
        return outcome.to_json() | {"message_id": message_id}


def _read(message: Any) -> tuple[str, str, str, str]:
    if not isinstance(message, Mapping):
        raise InvalidRequestError("", "expected an object with path, from and to")
    for name in ("path", "from", "to", "message_id"):
        if not isinstance(message.get(name), str):
            raise InvalidRequestError(name, "expected a text")
    if not is_address(message["to"]):
        raise InvalidRequestError("to", "expected an address")
    return message["path"], message["from"], message["to"], message["message_id"]
