"""Wakes rooms for services that have work for them, and says which rooms must not get to work.

Services are made before the directory of rooms, which calls them; so they get this object, and the directory is set when it is
made. Triggers ask it before they send.
"""

from meshhost.errors import InvalidTokenError, MeshhostError, NotFoundError
from meshhost.identity.tenant import RoomKey
from meshhost.server.core.directory import RoomDirectory
from meshhost.stores.identity_service import IdentityService
from meshhost.triggers.makers import Maker

__all__ = ["Waking"]


class Waking:
    """Wakes rooms. `directory` must be set before a room is needed."""

    directory: RoomDirectory

    def __init__(self, identity: IdentityService) -> None:
        self._identity = identity

    def need(self, key: RoomKey) -> None:
        """There is work in this room: wake it, unless it must not get to work."""
        if self.directory.find(key) is None:
            try:
                self.check(key)
            except MeshhostError:  # its work waits
                return
        self.directory.need(key)

    def is_awake(self, key: RoomKey) -> bool:
        """Whether the room is open, and more than looked at."""
        room = self.directory.find(key)
        return room is not None and room.is_awake

    def check(self, key: RoomKey) -> None:
        """Raise a MeshhostError for a room that must not get to work: its tenant is suspended, or it is not there yet."""
        self._identity.check_tenant(key.tenant)
        # What an import of the room, or of its tenant, has brought so far waits for the rest.
        if any(self._identity.deleted_rooms.is_known(RoomKey(key.tenant, name)) for name in (key.name, "")):
            raise NotFoundError("the room is being deleted or imported")

    def check_maker(self, room: RoomKey, maker: Maker) -> None:
        """Raise InvalidTokenError when the key with which something was made was revoked or has expired."""
        if maker.key_id is not None and self._identity.signing_key(room.tenant, maker.key_id) is None:
            raise InvalidTokenError(
                "the API key with which this was made has ended: with another key, resume it, or rotate the secret of a hook"
            )
