"""Where the LLM gateway of a room is: its URL follows from the room's URL, its key is the participant token. Pure: no I/O."""

from urllib.parse import urlsplit, urlunsplit

from meshhost.errors import SettingsError

__all__ = ["gateway_url"]

_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


def gateway_url(room_url: str) -> str:
    """Return the address of the gateway of the room at `room_url`. Raises SettingsError."""
    parts = urlsplit(room_url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise SettingsError("the room's address must be a ws, wss, http or https URL")
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, f"{parts.path.rstrip('/')}/v1", "", ""))
