"""Voice sessions of a room on a LiveKit server: where it is, and a token to join one (room-protocol, `livekit.connect`)."""

from typing import Any

from meshhost.errors import RoomError
from meshhost.room.link import RoomLink

__all__ = ["LivekitClient", "LivekitConnectionInfo"]


class LivekitConnectionInfo:
    """The LiveKit server's `url`, and a `token` that joins one session there."""

    def __init__(self, *, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def __repr__(self) -> str:
        return f"<LivekitConnectionInfo {self.url}>"


class LivekitClient:
    """Asks the room for voice sessions. All who name the same breakout room meet in one."""

    def __init__(self, *, room: RoomLink) -> None:
        self._room = room

    async def get_connection_info(self, *, breakout_room: str | None = None) -> LivekitConnectionInfo:
        """Return where to join, and with what.

        Raises AccessDeniedError when the grant `livekit` does not allow this breakout room, and RoomError when the room server
        has no LiveKit server.
        """
        answer: Any = await self._room.send_request("livekit.connect", {"breakout_room": breakout_room})
        if (
            not isinstance(answer, dict)
            or not isinstance(answer.get("url"), str)
            or not isinstance(answer.get("token"), str)
        ):
            raise RoomError("livekit.connect: the room server answered without url and token")
        return LivekitConnectionInfo(url=answer["url"], token=answer["token"])
