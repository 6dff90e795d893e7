"""When a delivery to a client without leases counts as done (design §5, room-protocol §23.1).

A client of SDK 0.6 receives a message and never says what became of it. These two pure functions decide for it, one when the
message is handed out and one when the connection ends; `queues.py` carries out the decision. A message may be delivered twice,
but it is never lost while an agent works on it.
"""

from enum import Enum

__all__ = ["Settlement", "on_end", "on_receive"]


class Settlement(Enum):
    """What becomes of a delivery."""

    AT_ONCE = "settled when the reply is written"
    AT_NEXT = "settled when the connection asks for the next message"
    EXPLICIT = "settled by the client"
    RETURN = "goes back to the queue"


def on_receive(*, wait: bool, leases: bool, confirms: bool = False) -> Settlement:
    """How a message that is handed out now will be settled.

    `wait`: the receive may wait; `leases`: it asks for a lease; `confirms`: the client says when the reply reached its caller,
    which settles the message if its next receive has not.
    """
    if leases:
        return Settlement.EXPLICIT
    return Settlement.AT_NEXT if wait or confirms else Settlement.AT_ONCE


def on_end(*, role: str, orderly: bool) -> Settlement:
    """What becomes of an AT_NEXT delivery when its connection ends.

    An agent that leaves may have been stopped while it worked, so its message always goes back. A user that closed the
    connection on purpose has taken its message; one whose connection broke may never have seen it.
    """
    return Settlement.AT_ONCE if role == "user" and orderly else Settlement.RETURN
