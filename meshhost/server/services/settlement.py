"""When a delivery to a client that never heard of leases counts as done (design §5, room-protocol §23.1). Pure."""

from enum import Enum

__all__ = ["Settlement", "on_end", "on_receive"]


class Settlement(Enum):
    """What becomes of a delivery."""

    AT_ONCE = "settled when the reply is written"
    AT_NEXT = "settled when the connection asks for the next message"
    EXPLICIT = "settled by the client"
    RETURN = "goes back to the queue"


def on_receive(*, wait: bool, leases: bool) -> Settlement:
    """How a message that is handed out now will be settled."""
    if leases:
        return Settlement.EXPLICIT
    return Settlement.AT_NEXT if wait else Settlement.AT_ONCE


def on_end(*, role: str, orderly: bool) -> Settlement:
    """What becomes of an AT_NEXT delivery when its connection ends.

    An agent that leaves may have been stopped while it worked: the message goes back, always. A user that closed in order has
    taken its message; one whose connection broke may never have seen it.
    """
    return Settlement.AT_ONCE if role == "user" and orderly else Settlement.RETURN
