"""Mailboxes of rooms: addresses to which mail is sent, and the queue that it becomes messages of.

A mailbox is kept as a trigger whose id is made of its address, so an address belongs to one room of one tenant of the whole
installation, and a mail server that asks for it finds it in one look. A mail becomes one message of the queue, `{"base64": …}`
as MeshAgent's agents read it, and is accepted when that is stored: `deliver` returns then, or raises. A mail with a Message-ID
that is handed over again with the same bytes, because the answer to the first time was lost, is stored once within
DOUBLE_SECONDS.

The log of the trigger has the last deliveries, without contents.
"""

import asyncio
import base64
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from meshhost.clock import Clock, SystemClock
from meshhost.errors import AlreadyExistsError, InvalidRequestError, MeshhostError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.mail.addresses import address_key, domain_of, is_address, mailbox_keys
from meshhost.protocol.json_values import dump_json
from meshhost.queues.reserved import server_id
from meshhost.queues.service import QueueService
from meshhost.stores.messages import NewMessage
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.refusals import check_name
from meshhost.stores.triggers.contract import LogEntry, Trigger, TriggerKind, TriggerLimits, TriggerStore
from meshhost.triggers.makers import NOBODY, CheckMaker, Maker, check_share, reason_against
from meshhost.validation import invalid_request

__all__ = ["DOUBLE_SECONDS", "Mailbox", "MailboxSpec", "Mailboxes"]

logger = logging.getLogger(__name__)

DOUBLE_SECONDS: Final = 5 * 24 * 3600.0
"""For how long a mail that comes again is known: mail servers try for about as long."""

_PREFIX: Final = "mailbox:"
_LARGE = 256 * 1024
# What needs no quoting in a path of REST, and in a command line little.
_LOCAL = re.compile(r"[\w.!$&'*=~-]{1,64}")
_MESSAGE_ID = re.compile(rb"(?im)^message-id[ \t]*:")


class MailboxSpec(BaseModel):
    """What a mailbox does. `public` and `annotations` are MeshAgent's; they are kept and change nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: str = Field(min_length=1, max_length=200)
    public: bool = False
    annotations: dict[str, str] = Field(default_factory=dict, max_length=100)

    @field_validator("annotations", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @staticmethod
    def parse(values: Any) -> "MailboxSpec":
        """Return what these JSON values say. Raises InvalidRequestError, which names the field."""
        try:
            spec = MailboxSpec.model_validate(values)
        except ValidationError as error:
            raise invalid_request(error) from None
        check_name(QueueKey(RoomKey(TenantId(""), ""), spec.queue))
        return spec


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox of a room at one version, and who made it."""

    address: str
    room: RoomKey
    spec: MailboxSpec
    created_at: float
    version: int = 1
    maker: Maker = NOBODY

    @property
    def id(self) -> str:
        """Its id as a trigger."""
        return f"{_PREFIX}{self.address}"

    @property
    def queue(self) -> QueueKey:
        """Where its mails go."""
        return QueueKey(self.room, self.spec.queue)

    @staticmethod
    def of(trigger: Trigger) -> "Mailbox":
        """Return the mailbox that a trigger keeps."""
        content = json.loads(trigger.content)
        spec = MailboxSpec.model_validate(content["spec"])
        maker = Maker(content.get("made_by", ""), content.get("key_id"))
        return Mailbox(content["address"], trigger.room, spec, content["created_at"], trigger.version, maker)

    def trigger(self) -> Trigger:
        """Return how it is kept."""
        content = {
            "address": self.address,
            "spec": self.spec.model_dump(mode="json"),
            "created_at": self.created_at,
            "made_by": self.maker.name,
            "key_id": self.maker.key_id,
        }
        return Trigger(self.id, TriggerKind.MAILBOX, self.room, dump_json(content), None, self.version)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON for its owner."""
        return {
            "address": self.address,
            "room": self.room.name,
            **self.spec.model_dump(mode="json"),
            "created_at": self.created_at,
            "made_by": self.maker.name,
            "key_id": self.maker.key_id,
        }

    @staticmethod
    def imported(content: Mapping[str, Any], room: RoomKey, now: float) -> "Mailbox":
        """Return the mailbox in an archive as one of this room. Raises InvalidRequestError."""
        return Mailbox(checked_address(content.get("address")), room, MailboxSpec.parse(content.get("spec")), now)


def checked_address(address: Any) -> str:
    """Return an address as it is kept. Raises InvalidRequestError."""
    if not isinstance(address, str) or not is_address(address.strip()):
        raise InvalidRequestError("address", "expected an address such as support@example.com")
    key = address_key(address)
    if _LOCAL.fullmatch(key.rpartition("@")[0].replace("+", "")) is None:
        raise InvalidRequestError("address", "expected letters, digits and any of .!$&'*=_~- before the @")
    if "+" in key.partition("@")[0]:
        raise InvalidRequestError("address", "expected one without '+': name+anything is the mailbox of name already")
    return key


class Mailboxes:
    """The mailboxes in `store`. `check_room` raises a MeshhostError when a room may be sent nothing now, `check_maker` when the
    key of a mailbox has ended. `domains` are those that addresses may have; none means any.
    """

    def __init__(
        self,
        store: TriggerStore,
        queues: QueueService,
        *,
        domains: Sequence[str] = (),
        clock: Clock | None = None,
        limits: TriggerLimits = TriggerLimits(),  # noqa: B008 - immutable
        check_room: Callable[[RoomKey], None] = lambda _: None,
        check_maker: CheckMaker = lambda *_: None,
        count: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._queues = queues
        self._domains = frozenset(domain_of(f"x@{each}") for each in domains)
        self._clock = clock or SystemClock()
        self._limits = limits
        self._check_room = check_room
        self._check_maker = check_maker
        self._count = count
        self._adding = asyncio.Lock()  # so that of several at once none sees the others too late

    async def create(self, room: RoomKey, address: str, spec: MailboxSpec, *, maker: Maker = NOBODY) -> Mailbox:
        """Make a mailbox. Raises InvalidRequestError, AlreadyExistsError, LimitExceededError, OSError."""
        address = checked_address(address)
        if not self._is_served(address):
            raise InvalidRequestError(
                "address", f"expected a domain of this server: {', '.join(sorted(self._domains))}"
            )
        mailbox = Mailbox(address, room, spec, self._clock.time(), maker=maker)
        async with self._adding:
            if maker.name:
                check_share(maker, [each.maker for each in await self.list(*room)], "mailboxes")
            try:
                await self._store.add(mailbox.trigger(), self._limits)
            except AlreadyExistsError:
                # It may be another tenant's, which this one learns as from any mail server.
                raise AlreadyExistsError(f"the address {address} is taken") from None
        return mailbox

    async def list(
        self, tenant: TenantId, room: str | None = None, *, after: str = "", limit: int = 1000
    ) -> Sequence[Mailbox]:
        """Return mailboxes of a tenant or room in the order of their addresses, at most `limit` after this address."""
        start = f"{_PREFIX}{after}" if after else ""
        found = await self._store.list(tenant, room, kind=TriggerKind.MAILBOX, after=start, limit=limit)
        return [Mailbox.of(trigger) for trigger in found]

    async def get(self, tenant: TenantId, address: str, *, room: str | None = None) -> Mailbox:
        """Return a mailbox of a tenant, or of one of its rooms. Raises NotFoundError."""
        found = await self._find(address_key(address))
        if found is None or not found.room.is_of(tenant, room):
            raise NotFoundError(f"no mailbox {address[:100]!r}")
        return found

    def shown(self, mailbox: Mailbox) -> dict[str, Any]:
        """Return it as JSON for its owner; `error` says why it takes nothing any more."""
        return {**mailbox.shown(), "error": reason_against(self._check_maker, mailbox.room, mailbox.maker)}

    async def change(self, mailbox: Mailbox, room: RoomKey, spec: MailboxSpec, *, maker: Maker = NOBODY) -> Mailbox:
        """Give it another queue, also of another room of its tenant. Of one whose key has ended, `maker` is the maker then.

        Raises RoomError.
        """
        if reason_against(self._check_maker, mailbox.room, mailbox.maker) is not None:
            mailbox = replace(mailbox, maker=maker)
        changed = replace(mailbox, room=room, spec=spec, version=mailbox.version + 1)
        if not await self._store.replace(changed.trigger()):
            raise RoomError("the mailbox was changed at the same time: try again")
        return changed

    async def delete(self, mailbox: Mailbox) -> None:
        """Delete it: mail for it is refused. Raises NotFoundError."""
        await self._store.delete(mailbox.room.tenant, mailbox.id)

    async def deliveries(self, mailbox: Mailbox) -> Sequence[dict[str, Any]]:
        """Return what happened to the last mails, the newest first."""
        return [{"at": entry.at, **json.loads(entry.content)} for entry in await self._store.entries(mailbox.id)]

    async def find(self, address: str) -> Mailbox | None:
        """Return the mailbox that mail for an address goes to, of whatever tenant; None when there is none.

        Raises TenantSuspendedError and other MeshhostErrors when it takes none at present, OSError.
        """
        for key in mailbox_keys(address):
            found = await self._find(key)
            if found is not None and self._is_served(key):
                self._check_room(found.room)
                self._check_maker(found.room, found.maker)
                return found
        return None

    async def deliver(
        self, mailbox: Mailbox, content: bytes, *, mail_from: str, recipient: str, headers: bytes = b""
    ) -> int:
        """Store a mail; return the id of its message, which is on the disk. `headers` are put before those of the mail.

        Raises what sending raises.
        """
        now = self._clock.time()
        entry: dict[str, Any] = {"bytes": len(content), "from": mail_from}
        try:
            message = await _message_of(mailbox, content, mail_from, recipient, headers)
            message_id = await self._queues.send(mailbox.queue, message)
        except (MeshhostError, OSError) as error:
            await self._log(mailbox, now, entry | {"outcome": "failed", "error": str(error)[:500]})
            raise
        await self._log(mailbox, now, entry | {"outcome": "stored", "message_id": str(message_id)})
        return message_id

    def _is_served(self, address: str) -> bool:
        return not self._domains or domain_of(address) in self._domains

    async def _find(self, key: str) -> Mailbox | None:
        found = await self._store.find(f"{_PREFIX}{key}")
        return None if found is None or found.kind is not TriggerKind.MAILBOX else Mailbox.of(found)

    async def _log(self, mailbox: Mailbox, at: float, content: Mapping[str, Any]) -> None:
        self._count(TriggerKind.MAILBOX, content["outcome"])
        try:
            await self._store.add_entry(mailbox.id, LogEntry(at, dump_json(dict(content))))
        except OSError as error:  # what was stored is stored, and must not be sent again for this
            fields = {"tenant": mailbox.room.tenant, "room": mailbox.room.name, "reason": str(error)}
            logger.warning("the log of a mailbox is not written", extra=fields)


async def _message_of(mailbox: Mailbox, content: bytes, mail_from: str, recipient: str, headers: bytes) -> NewMessage:
    def make() -> NewMessage:
        value = {
            "base64": base64.b64encode(headers + content).decode(),
            "envelope": {"from": mail_from, "to": recipient},
        }
        name = None
        if _MESSAGE_ID.search(content.partition(b"\r\n\r\n")[0]):
            digest = hashlib.sha256(f"{mailbox.address}\n{mail_from}\n".encode() + content).hexdigest()
            name = server_id("mail", digest)
        return NewMessage(
            dump_json(value),
            headers={"meshhost-mailbox": mailbox.address},
            sender_id=name,
            remember_seconds=DOUBLE_SECONDS,
        )

    return make() if len(content) < _LARGE else await asyncio.to_thread(make)
