"""An OpenAI client for the room's gateway: its URL follows from the room's URL, its key is the participant token."""

from typing import TYPE_CHECKING

from openai import AsyncOpenAI, Timeout

from meshhost.room.services.gateway import gateway_url

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["gateway_url", "get_client", "open_client"]

# Seconds. `read` bounds the wait for the next bytes, not for the whole answer: a model may take long to think.
_TIMEOUT = Timeout(connect=10.0, read=120.0, write=30.0, pool=10.0)


def get_client(*, room: "RoomClient") -> AsyncOpenAI:
    """Return a client for the room's gateway, which the caller must close. It does not retry: `tools/retry.py` does.

    Raises SettingsError when the room's address is not a WebSocket or HTTP URL.
    """
    return open_client(gateway_url(room.room_url), room.protocol.token)


def open_client(base_url: str, api_key: str | None, headers: dict[str, str] | None = None) -> AsyncOpenAI:
    """Return a client for a service at `base_url`, which the caller must close. It does not retry."""
    # Without a key the library would look for one in the environment, which is meant for another service.
    return AsyncOpenAI(
        base_url=base_url, api_key=api_key or "none", max_retries=0, timeout=_TIMEOUT, default_headers=headers
    )
