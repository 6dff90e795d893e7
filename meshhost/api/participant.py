"""The names of `meshagent.api.participant`."""

from meshhost.room.participants import Participant

__all__ = ["Participant"]
