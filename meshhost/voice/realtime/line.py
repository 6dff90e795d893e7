"""`RealtimeLine`: one connection to the provider, with its session.

Opens the WebSocket, waits until the provider has taken the settings, sends what the session wants sent, and reads. Every wait
has an end. What goes wrong with the connection becomes `LineLostError`, after which another line is opened; what would go wrong
again in just the same way is an LLMError.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Self

from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientSession,
    ClientWebSocketResponse,
    WSMsgType,
    WSServerHandshakeError,
)
from yarl import URL

from meshhost.errors import LLMError, MeshhostError
from meshhost.voice.realtime.events import Event, Expired, Failed, Ready
from meshhost.voice.realtime.options import RealtimeOptions
from meshhost.voice.realtime.session import RealtimeSession, append_event

__all__ = ["LineLostError", "RealtimeLine"]

_MAX_EVENT_BYTES = 4 * 1024 * 1024
_HEARTBEAT_SECONDS = 20.0
_MAX_MALFORMED = 20
_CLOSE_SECONDS = 2.0
# Too many requests, or the provider is not well: another try makes sense.
_PASSING = frozenset({408, 409, 425, 429})


class LineLostError(MeshhostError):
    """The connection could not be made, or ended."""


class RealtimeLine:
    """One connection. Made by `open`."""

    def __init__(self, socket: ClientWebSocketResponse, session: RealtimeSession, options: RealtimeOptions) -> None:
        self.session = session
        self.opened_at = asyncio.get_running_loop().time()
        self.is_full = asyncio.Event()
        self.is_lost = asyncio.Event()
        self._socket = socket
        self._options = options

    def __repr__(self) -> str:
        return f"<RealtimeLine {self.session!r} lost={self.is_lost.is_set()}>"

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return asyncio.get_running_loop().time() - self.opened_at

    @classmethod
    async def open(
        cls, http: ClientSession, url: URL, headers: dict[str, str], session: RealtimeSession, options: RealtimeOptions
    ) -> Self:
        """Open a connection whose session is ready. Raises LineLostError, and LLMError for a refusal that is final."""
        socket = None
        try:
            async with asyncio.timeout(options.connect_seconds):
                socket = await http.ws_connect(
                    url, headers=headers, heartbeat=_HEARTBEAT_SECONDS, max_msg_size=_MAX_EVENT_BYTES
                )
                line = cls(socket, session, options)
                await line._become_ready()
        except WSServerHandshakeError as error:
            raise _refusal(error.status) from None
        except (TimeoutError, ClientError, OSError) as error:
            if socket is not None:
                await _close(socket)
            raise LineLostError("the voice model did not answer") from error
        except BaseException:
            if socket is not None:
                await _close(socket)
            raise
        return line

    async def events(self) -> AsyncIterator[Event]:
        """What happens in the session. Ends when the connection does, or the session has to."""
        while (found := await self._receive()) is not None:
            for event in found:
                yield event
            with contextlib.suppress(LineLostError):
                await self.flush()
        self.is_lost.set()
        self.is_full.set()

    async def flush(self) -> None:
        """Send what the session wants sent. Raises LineLostError."""
        while self.session.outgoing:
            await self._send(json.dumps(self.session.outgoing.pop(0)))

    async def send_sound(self, pcm: bytes) -> None:
        """Send sound of the caller. Raises LineLostError."""
        await self._send(append_event(pcm))

    async def fill(self, items: list[dict[str, Any]]) -> None:
        """Send the conversation so far, and wait until it has arrived. Its events must be read meanwhile.

        Raises LineLostError, also when the provider does not take it in time.
        """
        if not self.session.seed(items):
            return
        await self.flush()
        try:
            async with asyncio.timeout(self._options.fill_seconds):
                await self.is_full.wait()
        except TimeoutError:
            raise LineLostError("the voice model did not take the conversation") from None
        if self.is_lost.is_set():
            raise LineLostError("the voice model ended the session")

    async def close(self) -> None:
        """Release the connection."""
        self.is_lost.set()
        await _close(self._socket)

    async def _become_ready(self) -> None:
        while (found := await self._receive()) is not None:
            for event in found:
                if isinstance(event, Failed):
                    raise LLMError(f"the voice model refused the session: {event.text}")
            await self.flush()
            if any(isinstance(event, Ready) for event in found):
                return
        raise LineLostError("the voice model ended the session at once")

    async def _receive(self) -> list[Event] | None:
        """What came next; None when nothing more comes."""
        if self.is_lost.is_set() or self.session.malformed > _MAX_MALFORMED:
            return None
        try:
            message = await self._socket.receive()
        except (ClientError, OSError):
            return None
        if message.type is WSMsgType.BINARY:
            return []
        if message.type is not WSMsgType.TEXT:
            return None
        found = self.session.receive(message.data)
        return None if any(isinstance(event, Expired) for event in found) else found

    async def _send(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._options.send_seconds):
                await self._socket.send_str(text)
        except (TimeoutError, ClientConnectionError, OSError, RuntimeError) as error:  # RuntimeError: it is closing
            self.is_lost.set()
            raise LineLostError("the voice model takes no more") from error


def _refusal(status: int) -> MeshhostError:
    if status in _PASSING or status >= 500:
        return LineLostError(f"the voice model gave no session (HTTP {status})")
    if status in (401, 403):
        return LLMError(f"the voice model refused the key or token (HTTP {status})", status=status)
    if status == 404:
        return LLMError("there is no such voice model, or the provider has no realtime API (HTTP 404)", status=status)
    return LLMError(f"the voice model refused the session (HTTP {status})", status=status)


async def _close(socket: ClientWebSocketResponse) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close()
