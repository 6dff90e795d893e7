"""Keeps a link to a server up: dials, dials again after a loss, and says when the link is a new one.

`LinkDialler.run` is one task for as long as the link is wanted. A connection that is lost is made again at once, then with a
growing random pause; the link goes on with all its channels where it was. When that takes longer than the server keeps a lost
link, or the server says that the link is a new one, the channels end, and those who used them open new ones: `on_new` is called
for each new link. `LinkedRoom` is the way of a room client over the link.

Invariant: while `run` runs there is always a link, connected or not; `open` waits for the connection, with a bound.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Protocol

from meshhost.backoff import Backoff
from meshhost.errors import ConnectionLostError, RoomError, RoomRefusedError
from meshhost.link.core import GoodbyeCode
from meshhost.link.greeting import LinkLimits
from meshhost.link.rooms import RoomRequest, dumped
from meshhost.link.running import Link, LinkChannel
from meshhost.transport.base import Transport

__all__ = ["Dial", "LinkDialler", "LinkedRoom"]

logger = logging.getLogger(__name__)

OPEN_SECONDS = 15.0
"""How long a channel may take: until there is a connection, and until the other side has answered."""

_BACKOFF = Backoff(first_delay=0.05, max_delay=5.0)
# Statuses that a server refuses a link with for good; it is tried again, but seldom, and reported as an error.
_FINAL = frozenset({400, 401, 403, 404, 410, 429})
# Reasons with which a server ends a link that no other try will change soon.
_STATUS = {GoodbyeCode.ACCESS_REVOKED: 401, GoodbyeCode.LIMIT: 429}
_FINAL_BACKOFF = Backoff(first_delay=5.0, max_delay=60.0, jitter=0.5)


class Dial(Protocol):
    """Makes a connection to the server's address for links, authenticated."""

    async def connect(self) -> Transport:
        """Raises RoomRefusedError with the HTTP status, ConnectionLostError when the server cannot be reached."""
        ...


class LinkDialler:
    """Keeps one link up. `on_new` is called for each new link when it is connected."""

    def __init__(
        self,
        dial: Dial,
        *,
        on_new: Callable[[Link], None],
        limits: LinkLimits | None = None,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self._dial = dial
        self._on_new = on_new
        self._limits = limits
        self._backoff = backoff
        self.refusal: RoomRefusedError | None = None
        """Why the server refuses the link, since it does."""
        self.link = self._new_link()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that is greeted."""
        return self.link.is_connected

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        attempt, lost_at = 0, None
        loop = asyncio.get_running_loop()
        try:
            while True:
                failure = await self._connect_once()
                now = loop.time()
                if failure is None:  # it was connected
                    attempt, lost_at = 0, now
                elif lost_at is not None and now - lost_at > self.link.core.resume_seconds and self.link.end is None:
                    # The server has given the link up by now; users of its channels must not wait for it.
                    self.link.stop(text="the server could not be reached in time")
                if self.link.end is not None:
                    await self.link.aclose()
                    self.link, lost_at = self._new_link(), None
                attempt += 1
                await asyncio.sleep(self._pause(attempt))
        finally:
            self.link.stop()
            await self.link.aclose()

    async def open(self, meta: bytes) -> LinkChannel:
        """Open a channel. Raises RoomRefusedError as the other side refuses it, ConnectionLostError."""
        link = self.link
        channel: LinkChannel | None = None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await link.wait_greeted()
                channel = link.open(meta)
                await channel.wait_accepted()
        except TimeoutError:
            if channel is not None:
                channel.abort()
            raise ConnectionLostError("the room server cannot be reached over the link") from None
        except BaseException:
            if channel is not None:
                channel.abort()
            raise
        return channel

    async def _connect_once(self) -> RoomError | None:
        """Use one connection until it ends; the error when there was none."""
        try:
            transport = await self._dial.connect()
        except RoomRefusedError as error:
            self.refusal = error
            level = logging.ERROR if error.status in _FINAL else logging.WARNING
            logger.log(level, "the room server refuses the link", extra={"status": error.status, "reason": str(error)})
            return error
        except ConnectionLostError as error:
            logger.info("the room server cannot be reached for a link", extra={"reason": str(error)})
            return error
        self.refusal = None
        link, was_greeted = self.link, self.link.greetings
        timer = asyncio.get_running_loop().call_later(
            OPEN_SECONDS, lambda: transport.abort() if link.greetings == was_greeted else None
        )
        try:
            await link.run(transport)
        finally:
            timer.cancel()
        if link.end is not None and (status := _STATUS.get(link.end.code)) is not None:
            logger.error("the room server ended the link", extra={"reason": link.end.text})
            self.refusal = RoomRefusedError(link.end.text, status=status)
        return None if link.greetings > was_greeted else ConnectionLostError("the link was not greeted")

    def _pause(self, attempt: int) -> float:
        is_final = self.refusal is not None and self.refusal.status in _FINAL
        return (_FINAL_BACKOFF if is_final else self._backoff).delay(attempt, random.random)

    def _new_link(self) -> Link:
        link = Link(dials=True, on_offer=_refuse, limits=self._limits)

        def greeted(resumed: bool) -> None:
            if not resumed:
                self._on_new(link)

        link.on_greeted = greeted
        return link


def _refuse(channel: LinkChannel, _: bytes) -> None:
    channel.refuse(501, "this side takes no channels")


class LinkedRoom:
    """A `ClientProtocol` that joins a room over a link. `url` is the room's, as the call named it."""

    __slots__ = ("_dialler", "_room", "_token", "_url")

    def __init__(self, dialler: LinkDialler, *, room: str, url: str, token: str) -> None:
        self._dialler = dialler
        self._room = room
        self._url = url
        self._token = token

    def __repr__(self) -> str:
        return f"<LinkedRoom {self._url}>"

    @property
    def url(self) -> str:
        """See `ClientProtocol`."""
        return self._url

    @property
    def token(self) -> str:
        """See `ClientProtocol`."""
        return self._token

    def renew(self, token: str) -> None:
        """Use this token from the next connection on."""
        self._token = token

    async def connect(self, *, resume: str | None = None) -> Transport:
        """See `ClientProtocol`."""
        return await self._dialler.open(dumped(RoomRequest(room=self._room, token=self._token, resume=resume)))
