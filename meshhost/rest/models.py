"""What the REST client returns: objects with the members that MeshAgent's have.

The server may say more; members that are not here are left out, so that a newer server does not break a program. Tokens and the
values of secrets are not shown by `repr`.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["KeysSecret", "Mailbox", "PullSecret", "Room", "RoomConnectionInfo", "RoomSession", "Secret", "read_secret"]


class Room(BaseModel):
    """A room of a project."""

    id: str
    name: str
    metadata: dict[str, Any] = Field(default_factory=dict)


class RoomConnectionInfo(BaseModel):
    """What a room is joined with: `RoomClient(protocol=WebSocketClientProtocol(url=room_url, token=jwt))`."""

    jwt: str = Field(repr=False)
    room_name: str
    project_id: str
    room_url: str


class RoomSession(BaseModel):
    """The present life of a room, and how many participants of each name are in it."""

    id: str
    room_id: str | None = None
    room_name: str
    created_at: datetime | None = None
    is_active: bool = True
    participants: Any = None


class Mailbox(BaseModel):
    """An address whose mails go into a queue."""

    address: str
    room: str
    queue: str


class Secret(BaseModel):
    """A secret of the project, by name."""

    id: str = ""
    name: str


class KeysSecret(Secret):
    """Values under names, as a program finds them in its environment."""

    type: Literal["keys"] = "keys"
    data: dict[str, str] = Field(default_factory=dict, repr=False)

    def to_payload(self) -> dict[str, str]:
        """The values."""
        return dict(self.data)


class PullSecret(Secret):
    """What images of containers are pulled with."""

    type: Literal["docker"] = "docker"
    server: str
    username: str
    password: str = Field(repr=False)
    email: str = "none@example.com"

    def to_payload(self) -> dict[str, str]:
        """The values."""
        return {"server": self.server, "username": self.username, "password": self.password, "email": self.email}


def read_secret(raw: dict[str, Any]) -> Secret:
    """A secret as the server shows it: without values, if it keeps them to itself."""
    data = raw.get("data") or {}
    named = {"id": str(raw.get("id", "")), "name": str(raw["name"])}
    return PullSecret(**named, **data) if raw.get("type") == "docker" and data else KeysSecret(**named, data=data)
