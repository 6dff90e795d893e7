"""Hooks of rooms: addresses that foreign services post to, and what becomes of that.

A hook has an id that nobody can guess, which is its address, and for most services a secret with which they sign. A delivery
is verified before its body is looked at (`signatures.py`), becomes one message for the hook's queue, and is answered when
that is stored. The service's own id of a delivery names the message, so one that is repeated is stored once. What happened is
kept in the log of the trigger, without bodies and secrets. Neither an unknown hook nor one of a room that may get no work can
be told from another: both are not found.

Secrets are kept in the store as API keys are: in the clear, because they sign, in a file or database that only the server
reads. They are shown when they are made and never again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets as _secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshhost.clock import Clock, SystemClock
from meshhost.errors import InvalidRequestError, InvalidTokenError, MeshhostError, NotFoundError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.protocol.json_values import dump_json
from meshhost.queues.reserved import check_header_names, server_id
from meshhost.queues.service import QueueService
from meshhost.stores.messages import NewMessage
from meshhost.stores.queues import QueueKey
from meshhost.stores.shared.refusals import check_name
from meshhost.stores.triggers.contract import LogEntry, Trigger, TriggerKind, TriggerLimits, TriggerStore
from meshhost.triggers.incoming import FORM, REMEMBER_SECONDS, data_in, media_of, messages_in, trace_of
from meshhost.triggers.makers import NOBODY, CheckMaker, Maker, check_share, reason_against
from meshhost.triggers.schedules import new_trigger_id
from meshhost.triggers.signatures import Scheme, check_secret, new_secret, sign, verify
from meshhost.validation import invalid_request

__all__ = ["HOOK_ID_BYTES", "Accepted", "Hook", "HookSpec", "Hooks"]

logger = logging.getLogger(__name__)

HOOK_ID_BYTES: Final = 16
_ID = re.compile(r"[0-9a-f]{46}")
_PLAIN: Final[Mapping[str, str]] = {}
_MOST_FIELDS: Final = 1000
# Headers that say what a delivery is about.
_KEPT: Final[Mapping[Scheme, Sequence[str]]] = {
    Scheme.STANDARD: ("webhook-id", "webhook-timestamp"),
    Scheme.GITHUB: ("x-github-event", "x-github-delivery"),
    Scheme.STRIPE: (),
    Scheme.SLACK: ("x-slack-retry-num", "x-slack-retry-reason"),
    Scheme.NONE: (),
}
# Never part of a message, even if they are asked for.
_SECRET_HEADERS: Final = {"authorization", "cookie", "proxy-authorization"}
_TEST: Final = {"type": "meshhost.test", "message": "This is a test of the hook."}
_HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class HookSpec(BaseModel):
    """What a hook does: to which queue it sends, how deliveries are signed, which more headers the messages keep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue: str = Field(min_length=1, max_length=200)
    verify: Scheme = Scheme.STANDARD
    name: str = Field("", max_length=200)
    headers: list[_HeaderName] = Field(default_factory=list, max_length=20)

    @staticmethod
    def parse(values: Any) -> HookSpec:
        """Return what these JSON values say. Raises InvalidRequestError, which names the field."""
        try:
            spec = HookSpec.model_validate(values)
        except ValidationError as error:
            raise invalid_request(error) from None
        check_name(QueueKey(RoomKey(TenantId(""), ""), spec.queue))
        check_header_names(spec.headers)
        return spec


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook of a room at one version, and who made it.

    Without a `secret`, one that verifies refuses everything.
    """

    id: str
    room: RoomKey
    spec: HookSpec
    created_at: float
    secret: str | None = field(default=None, repr=False)
    version: int = 1
    maker: Maker = NOBODY

    @property
    def queue(self) -> QueueKey:
        """Where its messages go."""
        return QueueKey(self.room, self.spec.queue)

    @staticmethod
    def of(trigger: Trigger) -> Hook:
        """Return the hook that a trigger keeps."""
        content = json.loads(trigger.content)
        spec = HookSpec.model_validate(content["spec"])
        maker = Maker(content.get("made_by", ""), content.get("key_id"))
        return Hook(trigger.id, trigger.room, spec, content["created_at"], content["secret"], trigger.version, maker)

    def trigger(self) -> Trigger:
        """Return how it is kept."""
        content = {
            "spec": self.spec.model_dump(mode="json"),
            "created_at": self.created_at,
            "secret": self.secret,
            "made_by": self.maker.name,
            "key_id": self.maker.key_id,
        }
        return Trigger(self.id, TriggerKind.HOOK, self.room, dump_json(content), None, self.version)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON for its owner, without its secret."""
        spec = self.spec.model_dump(mode="json")
        has_secret = self.secret is not None or self.spec.verify is Scheme.NONE
        return {
            "id": self.id,
            "room": self.room.name,
            **spec,
            "created_at": self.created_at,
            "made_by": self.maker.name,
            "key_id": self.maker.key_id,
            "ready": has_secret,
        }


class Accepted(NamedTuple):
    """What became of a delivery: the id of its message, or the `challenge` to answer to a service that asks who is here."""

    message_id: int | None
    challenge: str | None = None


class Hooks:
    """The hooks in `store`. `check_room` raises a MeshhostError when a room may be sent nothing now, `check_maker` when the
    key of a hook has ended.

    `count` counts what became of a delivery: its kind, and the outcome.
    """

    def __init__(
        self,
        store: TriggerStore,
        queues: QueueService,
        *,
        clock: Clock | None = None,
        limits: TriggerLimits = TriggerLimits(),  # noqa: B008 - immutable
        check_room: Callable[[RoomKey], None] = lambda _: None,
        check_maker: CheckMaker = lambda *_: None,
        count: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._count = count
        self._store = store
        self._queues = queues
        self._clock = clock or SystemClock()
        self._limits = limits
        self._check_room = check_room
        self._check_maker = check_maker
        self._adding = asyncio.Lock()  # so that of several at once none sees the others too late

    async def create(self, room: RoomKey, spec: HookSpec, secret: str | None = None, *, maker: Maker = NOBODY) -> Hook:
        """Make a hook; without a secret, one is made where the receiver chooses it. Raises LimitExceededError, OSError."""
        now = self._clock.time()
        secret = _secret_for(spec.verify, secret)
        hook = Hook(new_trigger_id(now, HOOK_ID_BYTES), room, spec, now, secret, maker=maker)
        async with self._adding:
            if maker.name:
                check_share(maker, [each.maker for each in await self.list(*room)], "hooks")
            await self._store.add(hook.trigger(), self._limits)
        return hook

    async def list(
        self, tenant: TenantId, room: str | None = None, *, after: str = "", limit: int = 1000
    ) -> Sequence[Hook]:
        """Return hooks of a tenant or room, the oldest first, at most `limit` after this id."""
        found = await self._store.list(tenant, room, kind=TriggerKind.HOOK, after=after, limit=limit)
        return [Hook.of(trigger) for trigger in found]

    async def get(self, tenant: TenantId, hook_id: str, *, room: str | None = None) -> Hook:
        """Return a hook of a tenant, or of one of its rooms. Raises NotFoundError."""
        hook = await self._find(hook_id)
        if not hook.room.is_of(tenant, room):
            raise NotFoundError("no such hook")
        return hook

    async def deliveries(self, hook: Hook) -> Sequence[dict[str, Any]]:
        """Return what happened to the last deliveries, the newest first."""
        return [{"at": entry.at, **json.loads(entry.content)} for entry in await self._store.entries(hook.id)]

    async def delete(self, hook: Hook) -> None:
        """Delete it: its address is gone. Raises NotFoundError."""
        await self._store.delete(hook.room.tenant, hook.id)

    def shown(self, hook: Hook) -> dict[str, Any]:
        """Return it as JSON for its owner; `error` says why it takes nothing any more."""
        return {**hook.shown(), "error": reason_against(self._check_maker, hook.room, hook.maker)}

    async def change_secret(self, hook: Hook, secret: str | None = None, *, maker: Maker = NOBODY) -> Hook:
        """Give it another secret, a new one by default; the old one is worth nothing at once.

        Of one whose key has ended, `maker` is the maker from now on. Raises RoomError.
        """
        if reason_against(self._check_maker, hook.room, hook.maker) is not None:
            hook = replace(hook, maker=maker)
        changed = replace(hook, secret=_secret_for(hook.spec.verify, secret), version=hook.version + 1)
        if not await self._store.replace(changed.trigger()):
            raise RoomError("the hook was changed at the same time: try again")
        return changed

    async def receive(self, hook_id: str) -> Hook:
        """Return the hook that a request is for, before its body is read. Raises NotFoundError."""
        hook = await self._find(hook_id)
        try:
            self._check_room(hook.room)
            self._check_maker(hook.room, hook.maker)
        except MeshhostError:
            raise NotFoundError("no such hook") from None
        return hook

    async def deliver(self, hook: Hook, headers: Mapping[str, str], body: bytes) -> Accepted:
        """Verify a delivery and store its message. `headers` are looked up without regard to case.

        Raises InvalidTokenError for a signature, InvalidRequestError for a body, and what sending raises.
        """
        now = self._clock.time()
        entry: dict[str, Any] = {"bytes": len(body)}
        try:
            delivery = verify(hook.spec.verify, hook.secret, headers, body, now=now)
            message = _message_of(hook, headers, body, delivery)
            challenge = _challenge_in(hook, message)
            if challenge is not None:
                await self._log(hook, now, entry | {"outcome": "challenge"})
                return Accepted(None, challenge)
            message_id = await self._queues.send(hook.queue, message)
        except InvalidTokenError:
            raise  # logged by the caller, which knows how often that happened
        except (MeshhostError, OSError) as error:
            await self._log(hook, now, entry | {"outcome": "failed", "error": str(error)[:500]})
            raise
        await self._log(hook, now, entry | {"outcome": "stored", "message_id": str(message_id), "delivery": delivery})
        return Accepted(message_id)

    async def log_refusal(self, hook: Hook, error: InvalidTokenError, size: int) -> None:
        """Keep for the owner that a delivery was refused, and why."""
        await self._log(hook, self._clock.time(), {"bytes": size, "outcome": "refused", "error": str(error)})

    async def test(self, hook: Hook) -> Accepted:
        """Deliver a message to the hook as its service would, signed with its secret. Raises as `deliver` does."""
        delivery = f"test-{_secrets.token_hex(8)}"
        body = dump_json({**_TEST, "id": delivery, "event_id": delivery}).encode()
        headers = {"content-type": "application/json"}
        headers |= sign(hook.spec.verify, hook.secret, body, delivery=delivery, now=self._clock.time())
        return await self.deliver(hook, headers, body)

    async def _find(self, hook_id: str) -> Hook:
        found = await self._store.find(hook_id) if _ID.fullmatch(hook_id) else None
        if found is None or found.kind is not TriggerKind.HOOK:
            raise NotFoundError("no such hook")
        return Hook.of(found)

    async def _log(self, hook: Hook, at: float, content: Mapping[str, Any]) -> None:
        self._count(TriggerKind.HOOK, content["outcome"])
        try:
            await self._store.add_entry(hook.id, LogEntry(at, dump_json(dict(content))))
        except OSError as error:  # what was stored is stored, and its service must not send it again for this
            fields = {"tenant": hook.room.tenant, "room": hook.room.name, "reason": str(error)}
            logger.warning("the log of a hook is not written", extra=fields)


def _secret_for(scheme: Scheme, given: str | None) -> str | None:
    if scheme is Scheme.NONE:
        if given is not None:
            raise InvalidRequestError("secret", "a hook that verifies nothing has none")
        return None
    return new_secret(scheme) if given is None else check_secret(scheme, given)


def _message_of(hook: Hook, headers: Mapping[str, str], body: bytes, delivery: str | None) -> NewMessage:
    media = media_of(headers)
    kept = {
        name: headers[name]
        for name in ("content-type", *_KEPT[hook.spec.verify], *(name.lower() for name in hook.spec.headers))
        if name in headers and name not in _SECRET_HEADERS
    }
    # Anybody who may make a hook may give it the name of another one; what is shown of the id is no address.
    kept |= {"meshhost-hook": hook.spec.name or hook.id[:20], "meshhost-hook-id": hook.id[:20]}
    name = None if delivery is None else server_id("hook", hook.id[:20], delivery)
    if "ce-specversion" in headers or media == "application/cloudevents+json":
        (event,) = messages_in(headers, body).messages
        name = name or server_id("hook", hook.id[:20], event.sender_id or "")
        return replace(event, headers={**event.headers, **kept}, sender_id=name)
    value, more = (_form_in(body), _PLAIN) if media == FORM else data_in(media, body)
    key = headers.get("idempotency-key")
    if name is None and key is not None and 0 < len(key) <= 200 and key.isprintable():
        name = server_id("hook", hook.id[:20], key)
    remember = None if name is None else REMEMBER_SECONDS
    return NewMessage(dump_json(value), {**trace_of(headers), **kept, **more}, name, remember)


def _form_in(body: bytes) -> Any:
    """The fields of a form; JSON in a field `payload`, as GitHub and Slack send it, is the whole."""
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidRequestError("body", f"expected a form of at most {_MOST_FIELDS} fields, in UTF-8") from None
    if len(payload := fields.get("payload", [])) == 1:
        try:
            return json.loads(payload[0])
        except (ValueError, RecursionError):
            pass
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def _challenge_in(hook: Hook, message: NewMessage) -> str | None:
    """What Slack wants to read back when the address is entered there."""
    if hook.spec.verify is not Scheme.SLACK:
        return None
    value = json.loads(message.body)
    if not isinstance(value, dict) or value.get("type") != "url_verification":
        return None
    challenge = value.get("challenge")
    return challenge if isinstance(challenge, str) else ""
