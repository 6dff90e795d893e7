"""What a listening port admits: plain values, which settings and files give (`MESHHOST_EDGE_…`, `[edge]`)."""

from dataclasses import dataclass

from meshhost.edge.descriptors import most_descriptors

__all__ = ["EdgeLimits"]

# The rest of the file descriptors is for stores, calls and logs.
_DESCRIPTOR_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """What a site admits.

    The headers of a request have `header_seconds` to arrive. Its body may pause for `body_idle_seconds`; all of it has as
    long to arrive, and another second for every `bytes_per_second` of it that came. What the server does not take yet does
    not count. At most `max_connections` are open (None: 80 % of the file descriptors that the process may have). Of those
    whose headers are incomplete there are at most `max_incomplete`, and `max_incomplete_per_address` from one address; from
    this machine, which a reverse proxy makes the address of everybody, as many as in total. Accepting connections and finding
    out who opened them takes at most `newcomer_share` of the event loop's time while it has other work. Bodies that are read
    whole, which is all but messages, files and archives, hold at most `max_body_bytes` while they arrive (`edge/bodies.py`).
    """

    header_seconds: float = 10.0
    body_idle_seconds: float = 30.0
    max_connections: int | None = None
    max_incomplete: int = 1024
    max_incomplete_per_address: int = 128
    bytes_per_second: float = 1024.0
    newcomer_share: float = 0.3
    max_body_bytes: int = 64 * 1024 * 1024

    def connections(self) -> int:
        """The most connections that may be open at once."""
        if self.max_connections is not None:
            return self.max_connections
        return most_descriptors(_DESCRIPTOR_SHARE)
