"""Bytes in flight: what the messages of a room server may hold in memory, by connection, tenant and server.

A message is held from its first packet until its request is answered, an answer or event until it is written to the network.
One client can make both last: it does not finish what it sends, or does not read what it asked for. So each connection has two
accounts, one for what it sends and one for what it is sent, and bytes are taken in one of them before memory is. Callers that
find no room wait, in the order in which they came: a request that waits is not lost, and TCP makes its sender wait. A wait for
the room of one tenant does not hold up another one.

The first FREE_BYTES of an account are not counted for tenant and server: small requests and answers never wait, whatever others
do, and cost a comparison. Everything runs in one event loop, and nothing is awaited between a check and what follows from it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from meshhost.errors import ConnectionLostError, TooLargeError
from meshhost.quotas.quota import ServerQuota

__all__ = ["FREE_BYTES", "Account", "InFlight"]

FREE_BYTES = 64 * 1024
"""What each account may hold uncounted."""


@dataclass(slots=True, eq=False)
class _Waiter:
    account: "Account"
    size: int
    granted: asyncio.Future[None]


class InFlight:
    """The bytes in flight of one server: at most `max_bytes`, and for each tenant what `quota_of` returns for it."""

    def __init__(self, max_bytes: int, quota_of: Callable[[str], ServerQuota]) -> None:
        self._max_bytes = max_bytes
        self._quota_of = quota_of
        self._total = 0
        self._by_tenant: dict[str, int] = {}
        self._waiters: list[_Waiter] = []

    @property
    def total(self) -> int:
        """The bytes that are counted now."""
        return self._total

    def of_tenant(self, tenant: str) -> int:
        """The bytes of a tenant that are counted now."""
        return self._by_tenant.get(tenant, 0)

    def account(self, tenant: str, *, max_bytes: int) -> "Account":
        """Make an account of a connection, which may hold `max_bytes`."""
        return Account(self, tenant, max_bytes)

    # For accounts.

    def refusal(self, account: "Account", size: int) -> str | None:
        """Return which limit does not let an account hold `size` more bytes now: that of `connection`, `tenant` or `server`."""
        if account.held + size > account.max_bytes:
            return "connection"
        counted = account.counted(size)
        if counted == 0:
            return None
        limit = self._quota_of(account.tenant).max_in_flight_bytes
        if limit is not None and self.of_tenant(account.tenant) + counted > limit:
            return "tenant"
        return "server" if self._total + counted > self._max_bytes else None

    def most_of(self, account: "Account") -> int:
        """The most that an account could hold if nobody else held anything."""
        limit = self._quota_of(account.tenant).max_in_flight_bytes
        counted = self._max_bytes if limit is None else min(self._max_bytes, limit)
        return min(account.max_bytes, counted + FREE_BYTES)

    def has_waiters(self) -> bool:
        """Whether somebody waits: those that come now must wait behind them."""
        return bool(self._waiters)

    def change(self, tenant: str, counted: int) -> None:
        """Count bytes of a tenant, or fewer of them."""
        self._total += counted
        now = self.of_tenant(tenant) + counted
        if now > 0:
            self._by_tenant[tenant] = now
        else:
            self._by_tenant.pop(tenant, None)

    async def wait(self, account: "Account", size: int) -> None:
        """Wait until the account holds `size` more bytes. Raises TooLargeError if that can never be."""
        if size > (most := self.most_of(account)):
            raise TooLargeError(f"message of {size} bytes, and at most {most} may be in flight")
        waiter = _Waiter(account, size, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self.grant()
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if not waiter.granted.cancelled() and waiter.granted.exception() is None:
                account.give_back(size)
            self.grant()  # to those that waited behind it
            raise

    def grant(self) -> None:
        """Give the room that there is to those that wait, the first ones first."""
        if not self._waiters:
            return
        blocked: set[object] = set()
        left: list[_Waiter] = []
        for waiter in self._waiters:
            account = waiter.account
            if waiter.granted.done():  # cancelled just now
                continue
            if blocked and not blocked.isdisjoint(("server", account.tenant, account)):
                left.append(waiter)
                continue
            refusal = self.refusal(account, waiter.size)
            if refusal is None:
                account.hold(waiter.size)
                waiter.granted.set_result(None)
                continue
            blocked.add({"connection": account, "tenant": account.tenant, "server": "server"}[refusal])
            left.append(waiter)
        self._waiters = left

    def end(self, account: "Account") -> None:
        """Let nobody wait for this account any more."""
        ended = [waiter for waiter in self._waiters if waiter.account is account]
        self._waiters = [waiter for waiter in self._waiters if waiter.account is not account]
        for waiter in ended:
            if not waiter.granted.done():
                waiter.granted.set_exception(ConnectionLostError())


class Account:
    """What one connection holds in one direction, in bytes: at most `max_bytes`."""

    __slots__ = ("_all", "_is_closed", "held", "max_bytes", "tenant")

    def __init__(self, all_in_flight: InFlight, tenant: str, max_bytes: int) -> None:
        self._all = all_in_flight
        self.tenant = tenant
        self.max_bytes = max_bytes
        self.held = 0
        self._is_closed = False

    @property
    def most(self) -> int:
        """The most that it could hold if nobody else held anything."""
        return self._all.most_of(self)

    def take(self, size: int, *, may_refuse: bool = True) -> bool:
        """Hold `size` more bytes; False when there is no room for them now, or others wait for it."""
        held = self.held + size
        if held <= FREE_BYTES and held <= self.max_bytes:  # most messages
            self.held = held
            return True
        if (
            may_refuse
            and not self._is_closed
            and (self._all.has_waiters() or self._all.refusal(self, size) is not None)
        ):
            return False
        self.hold(size)
        return True

    async def reserve(self, size: int) -> None:
        """Hold `size` more bytes, as soon as there is room for them. The caller must give them back.

        Raises TooLargeError when there can never be, ConnectionLostError when the account is closed meanwhile.
        """
        if not self.take(size):
            await self._all.wait(self, size)

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less. What a closed account held is given back already."""
        before, self.held = self.held, max(self.held - size, 0)
        if before > FREE_BYTES:
            self._all.change(self.tenant, max(self.held, FREE_BYTES) - before)
        self._all.grant()

    def close(self) -> None:
        """The connection has ended: hold nothing, and end all waits. Idempotent."""
        self._is_closed = True
        self._all.end(self)
        self.give_back(self.held)

    def counted(self, size: int) -> int:
        """How many more bytes are counted when the account holds `size` more."""
        return max(self.held + size, FREE_BYTES) - max(self.held, FREE_BYTES)

    def hold(self, size: int) -> None:
        """Hold `size` more bytes, whatever the limits are. A closed account holds nothing."""
        if self._is_closed:
            return
        counted = self.counted(size)
        self.held += size
        if counted:
            self._all.change(self.tenant, counted)
