"""`livekit.rtc` without a server: the real sources, tracks and streams of sound, in sessions that are in this process.

`SessionWithoutServer` stands for `livekit.rtc.Room` and behaves as that does where `LivekitCarrier` can tell: a token opens one
session under one identity; who joins hears of those who are there, and is heard of; a published track is subscribed to by
all others; leaving and losing the connection are reported to the others with their reason. What it cannot show is a network: no
signalling, no codec, no packet is lost. A LiveKit server is not to be had as a package.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jwt
from livekit import rtc

__all__ = ["SessionWithoutServer", "livekit_without_server"]


def livekit_without_server(secret: str) -> Any:
    """A module like `livekit.rtc`, whose sessions are in this process."""
    sessions: dict[str, dict[str, SessionWithoutServer]] = defaultdict(dict)
    module = SimpleNamespace(**{name: getattr(rtc, name) for name in rtc.__all__ if hasattr(rtc, name)})
    module.Room = lambda: SessionWithoutServer(secret, sessions)
    module.sessions = sessions
    return module


class _Participant:
    """One side of a session, as itself and as others see it."""

    def __init__(self, session: "SessionWithoutServer", identity: str) -> None:
        self.identity = identity
        self.disconnect_reason: Any = None
        self.attributes: dict[str, str] = {}
        self.texts: list[tuple[str, str, dict[str, str]]] = []
        self.tracks: list[Any] = []
        self._session = session

    async def publish_track(self, track: Any, options: Any) -> None:
        self.tracks.append(track)
        for other in self._session.others():
            other.emit("track_subscribed", track, None, self)

    async def set_attributes(self, attributes: dict[str, str]) -> None:
        if "canUpdateOwnMetadata" not in self._session.video:
            raise RuntimeError("does not have permission to update own metadata")
        self.attributes |= attributes

    async def send_text(self, text: str, *, topic: str, attributes: dict[str, str]) -> None:
        self.texts.append((text, topic, attributes))


class SessionWithoutServer:
    """A connection to a session. `lose` loses it as a failing network does."""

    def __init__(self, secret: str, sessions: dict[str, dict[str, "SessionWithoutServer"]]) -> None:
        self.local_participant: Any = None
        self.video: dict[str, Any] = {}
        self._secret = secret
        self._sessions = sessions
        self._handlers: dict[str, list[Callable[..., None]]] = defaultdict(list)
        self._members: dict[str, SessionWithoutServer] = {}

    @property
    def remote_participants(self) -> dict[str, Any]:
        return {other.local_participant.identity: other.local_participant for other in self.others()}

    def on(self, event: str, callback: Callable[..., None]) -> None:
        self._handlers[event].append(callback)

    def emit(self, event: str, *arguments: Any) -> None:
        for handler in self._handlers[event]:
            handler(*arguments)

    def others(self) -> list["SessionWithoutServer"]:
        return [other for other in self._members.values() if other is not self]

    async def connect(self, url: str, token: str, options: Any = None) -> None:
        if url == "ws://hangs":
            await asyncio.Event().wait()
        if not url.startswith("ws"):
            raise rtc.ConnectError("signal failure")
        claims = jwt.decode(token, key=self._secret, algorithms=["HS256"])
        self.video = claims["video"]
        assert self.video["roomJoin"]
        self.local_participant = _Participant(self, claims["sub"])
        self._members = self._sessions[self.video["room"]]
        self._members[claims["sub"]] = self
        for other in self.others():
            other.emit("participant_connected", self.local_participant)
            for track in other.local_participant.tracks:
                self.emit("track_subscribed", track, None, other.local_participant)

    async def disconnect(self) -> None:
        self._leave(rtc.DisconnectReason.CLIENT_INITIATED)

    def lose(self) -> None:
        self._leave(rtc.DisconnectReason.SIGNAL_CLOSE)

    def _leave(self, reason: Any) -> None:
        if self.local_participant is None or self._members.pop(self.local_participant.identity, None) is None:
            return
        self.local_participant.disconnect_reason = reason
        for other in list(self._members.values()):
            other.emit("participant_disconnected", self.local_participant)
        self.emit("disconnected", reason)
