"""A room server that behaves as MeshAgent's reference does, its faults included.

It speaks the bare protocol (room-protocol §1-§13) without our extensions: no resuming, no leases, 1 KiB packets, replies with
`usage: null`. A message of a queue is gone once it was delivered, and a request in progress is never answered when its
connection ends. Everything is kept in memory, and tokens are read but not verified.

`server` accepts connections and holds the script of misbehaviour, `member` is one connection, `room` dispatches requests to one
module per service. Each connection has one task that reads it and answers in order; parked receives and held answers are tasks
of their connection and end with it.
"""

from doubles.stand_in.member import Misbehaviour
from doubles.stand_in.server import StandInServer

__all__ = ["Misbehaviour", "StandInServer"]
