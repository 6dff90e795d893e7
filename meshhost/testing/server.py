"""A real room server for tests, in the test's process: real sockets and SQLite, with a port, a folder and a key of its own.

Use it as a fixture: `async with running_server(tmp_path) as server: yield server`; then `server.client("room")` joins a room,
and `server.cut(client)` loses its connection as a failing network does.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from meshhost.app.config_file import ServerFile
from meshhost.app.embedded import ServerOptions, open_room_server
from meshhost.errors import RoomError
from meshhost.gateway.provider import ProviderTable
from meshhost.identity.grants import ApiScope
from meshhost.identity.keys import ApiKey, encode_api_key, new_api_key
from meshhost.identity.tokens import ParticipantGrant, ParticipantToken
from meshhost.protocol.frames import Limits
from meshhost.room.client import RoomClient
from meshhost.room.reconnect import ReconnectPolicy
from meshhost.server.server import RoomServer
from meshhost.transport.client_socket import ClientSocket
from meshhost.transport.websocket_client import WebSocketClientProtocol, WebSocketTransport

__all__ = ["RunningServer", "running_server"]

_PROJECT = "11111111-2222-3333-4444-555555555555"


@dataclass(slots=True)
class RunningServer:
    """A running room server, and tokens and clients for it."""

    server: RoomServer
    key: ApiKey = field(repr=False)

    @property
    def url(self) -> str:
        """Its REST address."""
        return self.server.url

    @property
    def api_key(self) -> str:
        """An API key of its project, as text."""
        return encode_api_key(self.key)

    def token(
        self,
        room: str,
        *,
        name: str = "tester",
        role: str = "user",
        scope: ApiScope | None = None,
        expiration: datetime | None = None,
    ) -> str:
        """A signed token for a room; without `scope` it grants everything."""
        token = ParticipantToken(
            name=name,
            grants=[
                ParticipantGrant(name="room", scope=room),
                ParticipantGrant(name="role", scope=role),
                ParticipantGrant(name="api", scope=ApiScope.full() if scope is None else scope),
            ],
        )
        return token.to_jwt(api_key=self.api_key, expiration=expiration)

    def client(
        self,
        room: str = "room",
        *,
        reconnect: ReconnectPolicy | None = None,
        limits: Limits | None = None,
        **token: Any,
    ) -> RoomClient:
        """A client for a room, not connected yet; other keyword arguments are those of `token`.

        `reconnect` and `limits` are those of `RoomClient`: `ReconnectPolicy(first_delay=0.0)` reconnects at once.
        """
        jwt = self.token(room, **token)
        protocol = _CuttableProtocol(url=self.server.room_url(room), token=jwt)
        return RoomClient(protocol=protocol, reconnect=reconnect, limits=limits or Limits())

    @staticmethod
    def cut(client: RoomClient) -> None:
        """Cut the connection of a client that `client` made, without a close frame. It then reconnects as its policy says."""
        if not isinstance(client.protocol, _CuttableProtocol) or client.protocol.transport is None:
            raise RoomError("only a client that `RunningServer.client` made and that has connected can be cut")
        client.protocol.transport.abort()


class _CuttableProtocol(WebSocketClientProtocol):
    """Remembers the last connection, to cut it."""

    transport: ClientSocket | WebSocketTransport | None = None

    async def connect(self, *, resume: str | None = None) -> ClientSocket | WebSocketTransport:
        """Dial, as the base class does."""
        self.transport = await super().connect(resume=resume)
        return self.transport


@asynccontextmanager
async def running_server(
    data_dir: Path,
    *,
    port: int = 0,
    key: ApiKey | None = None,
    file: ServerFile | None = None,
    providers: ProviderTable | None = None,
    other_keys: Sequence[ApiKey] = (),
    database_url: str | None = None,
    operator_key: str | None = None,
) -> AsyncIterator[RunningServer]:
    """A room server on a free port of this machine, with its data in `data_dir`.

    It knows `key` (by default a new one) and `other_keys`, which may belong to other projects. All but files is kept in
    SQLite there, unless `database_url` names another database. `operator_key` manages tenants; without one nobody does.
    """
    own = key or new_api_key(_PROJECT)
    options = ServerOptions(
        port=port,
        data_dir=data_dir,
        database_url=database_url,
        file=file or ServerFile(),
        providers=providers or ProviderTable({}),
        extra_keys=lambda: [own, *other_keys],
        operator_key=operator_key,
    )
    async with open_room_server(options) as server:
        yield RunningServer(server, own)
