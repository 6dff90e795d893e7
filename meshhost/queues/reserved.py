"""Names that only the server gives: ids of messages that begin with `meshhost:`, and headers that begin with `meshhost-`.

A queue stores one message under an id, by any sender, and a worker reads from headers where a message comes from. What
schedules and hooks send has ids and headers of these forms. They are refused from clients, at the edges where a client may name
one (the wire, REST, the specs of schedules and hooks): nobody takes the place of such a message, and nobody feigns one.
"""

from collections.abc import Iterable
from typing import Final

from meshhost.errors import InvalidRequestError

__all__ = ["check_header_names", "check_sender_id", "server_id"]

_ID_PREFIX: Final = "meshhost:"
_HEADER_PREFIX: Final = "meshhost-"


def server_id(*parts: str) -> str:
    """Return the id of a message that the server makes, from its kind and what tells it apart."""
    return _ID_PREFIX + ":".join(parts)


def check_sender_id(sender_id: str | None, field: str = "id") -> None:
    """Raise InvalidRequestError for an id that only the server gives."""
    if sender_id is not None and sender_id.startswith(_ID_PREFIX):
        raise InvalidRequestError(
            field, f"expected a text that does not begin with {_ID_PREFIX!r}, which the server uses"
        )


def check_header_names(names: Iterable[str], field: str = "headers") -> None:
    """Raise InvalidRequestError for the name of a header that only the server sets, in upper or lower case."""
    for name in names:
        if name.lower().startswith(_HEADER_PREFIX):
            text = (
                f"expected no names that begin with {_HEADER_PREFIX!r}, which the server sets: leave out {name[:60]!r}"
            )
            raise InvalidRequestError(field, text)
