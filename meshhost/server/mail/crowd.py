"""Who is connected to the mail ports, and how much each address may do: connections, mails, wrong recipients, bytes in memory.

An address is that of the network, so a sender that hides behind many is bounded by the totals. IPv6 addresses count by their
/64, which one subscriber has. All in the event loop; nothing is awaited, so what is checked is true when it is taken.
"""

from collections import Counter, OrderedDict
from ipaddress import IPv6Address, ip_address

from meshhost.clock import Clock, SystemClock
from meshhost.quotas.token_bucket import TokenBucket
from meshhost.server.config import MailConfig

__all__ = ["Crowd"]

_MOST_KNOWN = 10_000
_MINUTE = 60.0


class Crowd:
    """The connections of all mail ports of a server."""

    def __init__(self, config: MailConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._connections: Counter[str] = Counter()
        self._mails: OrderedDict[str, TokenBucket] = OrderedDict()
        self._unknown: OrderedDict[str, TokenBucket] = OrderedDict()
        self._buffered = 0

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return self._connections.total()

    def enter(self, address: str) -> bool:
        """Count a connection; False when there are too many, of this address or in total."""
        key = network_of(address)
        if self.connected >= self._config.max_connections:
            return False
        if self._connections[key] >= self._config.max_connections_per_address:
            return False
        self._connections[key] += 1
        return True

    def leave(self, address: str) -> None:
        """A counted connection has ended."""
        key = network_of(address)
        self._connections[key] -= 1
        if self._connections[key] <= 0:
            del self._connections[key]

    def may_send(self, address: str) -> bool:
        """Count a mail; False when the address sent too many in the last minute."""
        return _take(self._bucket(self._mails, address, self._config.mails_per_minute))

    def is_guessing(self, address: str) -> bool:
        """Whether the address named too many recipients that do not exist, and is not answered about others for a while."""
        return self._bucket(self._unknown, address, self._config.max_unknown).wait() > 0

    def count_unknown(self, address: str) -> None:
        """The address named a recipient that does not exist, or showed a wrong password."""
        self._bucket(self._unknown, address, self._config.max_unknown).take()

    def buffer(self, size: int) -> bool:
        """Count bytes that are held in memory; False when there is no room for them."""
        if self._buffered + size > self._config.max_buffered_bytes:
            return False
        self._buffered += size
        return True

    def release(self, size: int) -> None:
        """Counted bytes are not held any more."""
        self._buffered -= size

    def _bucket(self, buckets: OrderedDict[str, TokenBucket], address: str, per_minute: float) -> TokenBucket:
        key = network_of(address)
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = TokenBucket(per_minute / _MINUTE, max(per_minute, 1.0), clock=self._clock)
        buckets.move_to_end(key)
        if len(buckets) > _MOST_KNOWN:
            buckets.popitem(last=False)
        return bucket


def network_of(address: str) -> str:
    """Return what is counted as one sender."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped) if found.ipv4_mapped else found.exploded[:19]
    return str(found)


def _take(bucket: TokenBucket) -> bool:
    if bucket.wait() > 0:
        return False
    bucket.take()
    return True
