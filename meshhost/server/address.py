"""Where a room server is reached: one object that every part asks for a URL.

The port is known only when the server listens (port 0 takes a free one), so parts that make URLs keep the `Address` and ask it
each time. `RoomServer.start` sets `port`.
"""

from urllib.parse import quote

from meshhost.server.config import ServerConfig

__all__ = ["Address"]

# What to dial for a server that listens on all interfaces.
_SHOWN = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound


class Address:
    """The URLs of a server. `port` is the one listened on, the configured one before."""

    def __init__(self, config: ServerConfig) -> None:
        self._host = config.host
        self._public_url = config.public_url
        self.port = config.port

    @property
    def url(self) -> str:
        """The REST address: the public URL, or the address listened on. Without a slash at the end."""
        return self.local_url if self._public_url is None else self._public_url.rstrip("/")

    @property
    def local_url(self) -> str:
        """The address listened on, for programs of this machine."""
        host = _SHOWN.get(self._host, f"[{self._host}]" if ":" in self._host else self._host)
        return f"http://{host}:{self.port}"

    def room_url(self, room_name: str) -> str:
        """The WebSocket URL of a room."""
        return f"ws{self.url.removeprefix('http')}/rooms/{quote(room_name)}"

    def local_room_url(self, room_name: str) -> str:
        """The WebSocket URL of a room, for programs of this machine."""
        return f"ws{self.local_url.removeprefix('http')}/rooms/{quote(room_name)}"
