"""Whether a host is this machine. Calls without a signature, local logins and admin pages are for loopback callers only.

One rule for all of them, so that no place forgets a form: a socket that listens on IPv6 reports its IPv4 callers as
`::ffff:127.0.0.1`, and URLs write IPv6 addresses in brackets.
"""

import functools
from ipaddress import ip_address

__all__ = ["is_loopback"]


@functools.lru_cache(maxsize=256)
def is_loopback(host: str | None) -> bool:
    """Return whether the host is `localhost` or a loopback address. Names are not resolved; None and nonsense are not."""
    if host is None:
        return False
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
