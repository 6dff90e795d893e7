"""Calls agents into rooms: the configured services of a room, and `agent.call`.

For each agent that a configured service has in a room, one task calls the service's host, waits until the agent joins, waits
until it is gone, and calls again: with a backoff when calls fail or the agent keeps leaving, and at the next of the service's
hosts when one fails. An agent that is there already, because its host brought it back, is not called; for that the server waits
a while after its own start. The tasks belong to the room and are cancelled when it ends (`service.py`). `kept.py` knows which
member is which agent, `records.py` keeps what became of the calls, for operators. When the services are replaced while the
server runs, the tasks of agents that are configured as before go on; the others are cancelled, and new ones begin.

A call carries a token that the agent joins with. It is signed with a key of the tenant and marks the agent as called by the
server, so that it does not keep the room open by itself. For a participant the server calls only what `call_urls.py` lets it
call, and gives away nothing that the participant does not have: the token grants no more than the participant's, ends with it,
is signed with the same key, so that it ends with that too, and takes the place of no configured agent, nor of one that is there
with more rights.

Longer than 400 lines because one task follows an agent through all the ways in which a service may be called: at an address, at
a host that dialled in, with the secrets of a tenant.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

from meshhost.clock import Clock, SystemClock
from meshhost.errors import (
    AccessDeniedError,
    CallRefusedError,
    NotFoundError,
    RoomError,
    SecretsLockedError,
    TokenError,
)
from meshhost.identity.called import ADDRESS_CLAIM, ASKED_ADDRESS_CLAIM, SERVICE_CLAIM
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import ApiKey, encode_api_key
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.server.calling.call_urls import CallUrls
from meshhost.server.calling.kept import KeptAgent, Unwanted, is_kept_at, unwanted
from meshhost.server.calling.linked import LinkedHosts
from meshhost.server.calling.records import CallOutcome, CallRecord, is_linked, shown_url
from meshhost.server.calling.webhooks import WebhookSender
from meshhost.server.config import CallTimes, ConfiguredService, SecretUse
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room
from meshhost.server.core.slots import Slot
from meshhost.tenant_names import name_of

__all__ = ["ServiceCaller", "TenantCalls"]

logger = logging.getLogger(__name__)

# What a call ends with that brought no agent.
_FAILED = frozenset(CallOutcome) - {CallOutcome.ACCEPTED, CallOutcome.JOINED}

TOKEN_LIFETIME = timedelta(days=7)

# Tokens whose ends differ by less than this end alike: a token has whole seconds, and calls take time.
_SAME_END = timedelta(seconds=30)

# Returns the key of this id that a tenant's tokens may be signed with, or without an id any. Raises TokenError.
KeyFor = Callable[[str, str | None], ApiKey]


class TenantCalls(Protocol):
    """What calls of services need that belong to a tenant: its secrets, and a way that reaches only where tenants may call."""

    async def values(self, tenant: TenantId, uses: Sequence[SecretUse]) -> dict[str, str]:
        """Return the values of secrets by variable. Raises NotFoundError, SecretsLockedError, OSError."""
        ...

    async def send(
        self, url: str, event: str, data: Mapping[str, Any], *, secret: str | None, tenant: TenantId
    ) -> dict[str, Any]:
        """Post as `WebhookSender.send` does. Raises CallRefusedError, also for an address that may not be called."""
        ...


class ServiceCaller:
    """Sends `room.call`. `key_for` returns the key that signs the token of a tenant's agent.

    `call_urls` are the URL prefixes that `agent.call` may reach; the operator's services are trusted without them, those that
    tenants configured are called through `tenant_calls`. For the first
    `return_seconds` no service with several hosts is called: its agent may come back by itself, from any of them; and a
    participant that calls an agent waits for the one of this name to come back. `linked` are the hosts that dialled in.
    """

    def __init__(
        self,
        sender: WebhookSender,
        *,
        services: Sequence[ConfiguredService],
        key_for: KeyFor,
        call_urls: Sequence[str],
        call_secret: str | None,
        count: Callable[[str], None],
        tenant_calls: TenantCalls,
        times: CallTimes = CallTimes(),  # noqa: B008 - immutable
        return_seconds: float = 0.0,
        clock: Clock | None = None,
        linked: LinkedHosts | None = None,
    ) -> None:
        self._sender = sender
        self._linked = LinkedHosts() if linked is None else linked
        self._configured = services
        self._stored: Sequence[ConfiguredService] = ()
        self._tenant_calls = tenant_calls
        self._services: Sequence[ConfiguredService] = [*services, *self._linked.services()]
        self._key_for = key_for
        self._call_urls = CallUrls(call_urls)
        self._call_secret = call_secret
        self._count = count
        self._times = times
        self._clock = clock or SystemClock()
        self._kept: Slot[list[KeptAgent]] = Slot(list)
        self._quiet_until = self._clock.monotonic() + return_seconds

    async def keep_called(self, room: Room) -> None:
        """Call every service that wants the room, and again whenever its agent is gone. Runs until cancelled."""
        agents = self._kept.of(room)
        tasks: dict[KeptAgent, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    present = self._services
                    wanted = self._wanted(room)
                    agents[:] = _kept_on(agents, wanted)
                    for gone in tasks.keys() - set(agents):
                        tasks.pop(gone).cancel()
                    for kept in agents:
                        if kept not in tasks:
                            tasks[kept] = group.create_task(self._keep(kept), name=f"service {kept.path.identity}")
                    await room.wait_until(lambda present=present: self._services is not present)  # type: ignore[misc]
        finally:
            agents.clear()

    def replace(self, services: Sequence[ConfiguredService]) -> None:
        """Call these services of the operator from now on; the caller wakes the rooms, by `Room.changed`."""
        self._configured = services
        self.linked_changed()

    def replace_stored(self, services: Sequence[ConfiguredService]) -> None:
        """Call these services of tenants from now on; the caller wakes the rooms, by `Room.changed`."""
        self._stored = services
        self.linked_changed()

    def linked_changed(self) -> None:
        """Call the services of the linked hosts as they are now; the caller wakes the rooms, by `Room.changed`."""
        self._services = [*self._configured, *self._stored, *self._linked.services()]

    @property
    def services(self) -> Sequence[ConfiguredService]:
        """The services of the operator that are called now. Those of tenants must not be shown what the operator may do."""
        return self._configured

    @property
    def called(self) -> Sequence[ConfiguredService]:
        """All services that are called now, with those that tenants stored and that linked hosts asked for."""
        return self._services

    def calls(self, room: Room) -> list[dict[str, Any]]:
        """The calls of each service of a room and their outcomes, as JSON."""
        return [kept.record.as_json(is_present=kept.is_present) for kept in self._kept.of(room)]

    def failing(self, room: Room) -> list[CallRecord]:
        """The records of the agents of services that are not in the room because their last call failed."""
        kept = [each for each in self._kept.of(room) if each.record.attempts and not each.is_present]
        return [each.record for each in kept if each.record.attempts[-1].outcome in _FAILED]

    def is_coming(self, room: Room, but: str, within: float) -> bool:
        """Whether an agent of a configured service may join within these seconds, or has only just joined.

        `but` is the identity of one that does not count. False means: what is not in the room now is offered by nobody.
        """
        agents = self._kept.of(room) or self._wanted(room)
        return any(
            kept.is_coming(within=within, start=self._times.start) for kept in agents if kept.path.identity != but
        )

    def is_arriving(self, room: Room, within: float) -> bool:
        """Whether an agent of a configured service is not in the room yet, and may join within these seconds."""
        agents = self._kept.of(room) or self._wanted(room)
        return any(not kept.is_present and kept.is_coming(within=within, start=0.0) for kept in agents)

    def unwanted(self, room: Room, joining: Participant) -> Unwanted | None:
        """Return which agent of a configured service must leave when this one joins; None when all may stay."""
        return unwanted(self._services, room, joining)

    def _wanted(self, room: Room) -> list[KeptAgent]:
        wanted = [service for service in self._services if service.wants(room.key)]
        return [KeptAgent(room, service, path) for service in wanted for path in service.paths]

    async def call_out(
        self, room: Room, caller: Participant, url: str, identity: str, arguments: dict[str, Any], wanted: ApiScope
    ) -> None:
        """Call one agent into the room for a participant that asked.

        A call of a configured agent at its own address does nothing: the server keeps it in the room, and the participant's
        token for it could only be weaker. Neither does one of an agent that is there with a token that grants more or lasts
        longer. Raises AccessDeniedError or RoomError.
        """
        # First, so that nobody learns anything of an address that may not be called.
        allowed = self._call_urls.allowed(url)
        if allowed is None:
            raise AccessDeniedError("agent.call", f"{url} (not among the URLs this room server may call)")
        if caller.scope.admin is None and (kept := is_kept_at(self._services, room, identity, allowed)) is not None:
            if kept:
                return
            raise AccessDeniedError(
                "agent.call",
                f"{url} (the agent {identity!r} of this room is configured elsewhere: choose another name)",
            )
        await self._until_known(room, identity)
        scope = wanted.intersection(caller.scope)
        for member in room.connected():
            if member.name == identity and member.role == "user":
                raise AccessDeniedError("agent.call", f"{url} ({identity!r} is in the room: choose another name)")
            if _would_lose(member, identity, scope, self._end_for(caller)):
                if member.asked_at == shown_url(allowed):
                    return
                raise AccessDeniedError(
                    "agent.call", f"{url} (an agent {identity!r} with more rights is in the room: choose another name)"
                )
        try:
            await self._call(room, allowed, identity, arguments, scope, secret=self._call_secret, caller=caller)
        except (CallRefusedError, TokenError) as error:
            raise RoomError(f"the call failed: {error}") from None

    async def _until_known(self, room: Room, identity: str) -> None:
        """Wait until it is known which agent of this name is in the room, or until none can come back any more.

        One that is about to connect again, also after a restart of this server, would go on with the token of a call that is
        made meanwhile, which may grant less than its own.
        """

        def members() -> list[Participant]:
            return [member for member in room.members.values() if member.name == identity]

        if (quiet := self._quiet_until - self._clock.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(quiet):
                    await room.wait_until(lambda: bool(members()))
        # A member that has lost its connection is back, or leaves, within the time to resume.
        await room.wait_until(lambda: not members() or any(member.peer is not None for member in members()))

    async def _keep(self, kept: KeptAgent) -> None:
        failures, times = 0, self._times
        while True:
            began = self._clock.monotonic()
            delay = await self._call_until_gone(kept)
            failures = 0 if self._clock.monotonic() - began > times.stable else failures + 1
            bound = min(times.max_delay, times.first_delay * 2.0 ** min(failures - 1, 16))
            backoff = random.uniform(0.5, 1.0) * bound  # noqa: S311
            wait = max(delay, backoff if failures else 0.0)
            kept.record.next_call_at = self._clock.time() + wait
            await self._clock.sleep(wait)

    async def _call_until_gone(self, kept: KeptAgent) -> float:
        """Call, and wait until the agent failed to join or has left. Returns the seconds that the next host asked to wait.

        An agent that is there already, or comes by itself while the server waits for those of its former life, is not called.
        """
        room, record = kept.room, kept.record
        if await self._is_there(kept):
            record.next_call_at = None
        else:
            retry_after = await self._call_once(kept)
            if retry_after is not None:
                return kept.urls.failed(self._clock.monotonic(), retry_after)
            try:
                async with asyncio.timeout(self._times.join):
                    await room.wait_until(lambda: kept.is_present)
            except TimeoutError:
                logger.warning("called agent did not join in time", extra=kept.log_fields)
                record.ended(CallOutcome.NOT_JOINED)
                return kept.urls.failed(self._clock.monotonic(), 0.0)
            record.ended(CallOutcome.JOINED)
        record.joined_at = self._clock.time()
        await room.wait_until(lambda: not kept.is_present)
        logger.info("called agent is gone", extra=kept.log_fields)
        return 0.0

    async def _is_there(self, kept: KeptAgent) -> bool:
        # Called at its one host, an agent that lives is found there. Of several hosts, only the agent itself knows its own.
        quiet = self._quiet_until - self._clock.monotonic()
        if quiet > 0 and (len(kept.service.all_urls) > 1 or is_linked(kept.service.url)):
            kept.record.next_call_at = self._clock.time() + quiet
            with suppress(TimeoutError):
                async with asyncio.timeout(quiet):
                    await kept.room.wait_until(lambda: kept.is_present)
        return kept.is_present

    async def _call_once(self, kept: KeptAgent) -> float | None:
        """Call the current host and record it. Returns None when it accepted, else the seconds it asked to wait."""
        path, record, url, at = kept.path, kept.record, kept.urls.current, self._clock.time()
        scope = path.scope or ApiScope.agent_default()
        record.next_call_at = None
        try:
            secret, arguments = await self._with_secrets(kept)
            if is_linked(url):
                url = await self._call_linked(kept, arguments, scope)
            else:
                tenant = kept.service.tenant
                send = None if tenant is None else partial(self._tenant_calls.send, tenant=tenant)
                await self._call(kept.room, url, path.identity, arguments, scope, secret=secret, send=send)
        except (NotFoundError, SecretsLockedError, OSError) as error:
            # The next call finds what was put right meanwhile.
            logger.warning("service call without its secret", extra={**kept.log_fields, "reason": str(error)})
            record.called(url, at, CallOutcome.NO_SECRET, error=str(error))
            return 0.0
        except CallRefusedError as error:
            logger.warning("service call failed", extra={**kept.log_fields, "reason": str(error)})
            # The sender raises from within its handler when the host could not be reached, else outside of one.
            if error.__context__ is None:
                record.called(url, at, CallOutcome.REFUSED, status=error.status, error=str(error))
            else:
                record.called(url, at, CallOutcome.UNREACHABLE, error=str(error))
            return error.retry_after or 0.0
        except TokenError as error:
            # The tenant has no key yet; the next call finds one that is made meanwhile.
            logger.warning("service call not signed", extra={**kept.log_fields, "reason": str(error)})
            record.called(url, at, CallOutcome.UNSIGNED, error=str(error))
            return 0.0
        record.called(url, at, CallOutcome.ACCEPTED)
        return None

    async def _with_secrets(self, kept: KeptAgent) -> tuple[str | None, dict[str, Any]]:
        """The secret that signs the call, and its arguments. Raises NotFoundError, SecretsLockedError, OSError."""
        service, tenant = kept.service, kept.room.key.tenant
        secret, environment = service.webhook_secret, dict(service.variables)
        if service.signed_with is not None:
            [secret] = (await self._tenant_calls.values(tenant, [service.signed_with])).values()
        if service.secrets:
            environment |= await self._tenant_calls.values(tenant, service.secrets)
        arguments = kept.path.arguments
        return secret, {**arguments, "environment": environment} if environment else arguments

    async def _call_linked(self, kept: KeptAgent, arguments: dict[str, Any], scope: ApiScope) -> str:
        """Call a host that dialled in; return its address. Raises CallRefusedError, TokenError."""
        room, path = kept.room, kept.path

        def data_for(address: str) -> dict[str, Any]:
            return self._data(room, path.identity, arguments, scope, None, called_at=address)

        try:
            address = await self._linked.call(kept.urls.current, room.key, kept.service.requires, data_for)
        except CallRefusedError:
            self._count("refused")
            raise
        self._count("accepted")
        return address

    async def _call(
        self,
        room: Room,
        url: str,
        identity: str,
        arguments: dict[str, Any],
        scope: ApiScope,
        *,
        secret: str | None,
        caller: Participant | None = None,
        send: Callable[..., Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        data = self._data(room, identity, arguments, scope, caller, called_at=shown_url(url))
        try:
            await (send or self._sender.send)(url, "room.call", data, secret=secret)
        except CallRefusedError:
            self._count("refused")
            raise
        self._count("accepted")

    def _data(
        self,
        room: Room,
        identity: str,
        arguments: dict[str, Any],
        scope: ApiScope,
        caller: Participant | None,
        *,
        called_at: str,
    ) -> dict[str, Any]:
        return {
            "room_name": room.key.name,
            "room_url": room.url,
            "token": self._token(room.key, identity, scope, caller, called_at=called_at),
            "arguments": arguments,
            "tenant_name": name_of(room.key.tenant),
        }

    def _token(
        self, room: RoomKey, identity: str, scope: ApiScope, caller: Participant | None, *, called_at: str
    ) -> str:
        """A token for the agent; without a caller it is one that the server keeps in the room."""
        # Each call has a token of its own, also two within a second: an agent whose room has just ended sees by its new token
        # that it was called again, and comes back instead of ending.
        claims: dict[str, Any] = {SERVICE_CLAIM: True, "jti": uuid.uuid4().hex}
        claims[ADDRESS_CLAIM if caller is None else ASKED_ADDRESS_CLAIM] = called_at
        token = ParticipantToken(
            name=identity,
            grants=[
                ParticipantGrant(name="room", scope=room.name),
                ParticipantGrant(name="role", scope="agent"),
                ParticipantGrant(name="api", scope=scope),
            ],
            extra_payload=claims,
        )
        key = self._key_for(room.tenant, None if caller is None else caller.key_id)
        return token.to_jwt(api_key=encode_api_key(key), expiration=self._end_for(caller))

    @staticmethod
    def _end_for(caller: Participant | None) -> datetime:
        """When the token of an agent ends that is called for this participant, or for the server."""
        latest = datetime.now(UTC) + TOKEN_LIFETIME
        return latest if caller is None or caller.expires_at is None else min(latest, caller.expires_at)


def _would_lose(member: Participant, identity: str, scope: ApiScope, end: datetime) -> bool:
    """Whether a member is an agent of this identity that a participant asked for and that would lose by such a token."""
    if member.name != identity or member.asked_at is None or member.expires_at is None:
        return False
    return end + _SAME_END < member.expires_at or not scope.covers(member.scope)


def _kept_on(before: Sequence[KeptAgent], wanted: Sequence[KeptAgent]) -> list[KeptAgent]:
    """The wanted agents; one that was wanted before in the same way is still the same object."""
    left, now = list(before), []
    for new in wanted:
        old = next(filter(new.is_configured_as, left), None)
        if old is not None:
            left.remove(old)
        now.append(old or new)
    return now
