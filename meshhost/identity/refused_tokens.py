"""Tokens that were refused for their signature: the same one again is refused for the price of a digest.

A program with a wrong key asks again and again, and checking a token costs some hundred times what a digest of it costs. Only
what can never become right is remembered: this text is not signed with this secret. So an unknown key, which may be made in
the next moment, is not, and neither is an expiry, which is a matter of the clock; a token that is good is checked each time,
because its key may be revoked. The secret is part of what is remembered: with another one, the token is checked.
"""

import hashlib
from collections import OrderedDict

from meshhost.clock import Clock, SystemClock

__all__ = ["RefusedTokens"]


class RefusedTokens:
    """At most `most` tokens that were refused in the last `seconds`. Of more, those that were refused first are forgotten."""

    def __init__(self, *, most: int = 10_000, seconds: float = 60.0, clock: Clock | None = None) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock or SystemClock()
        self._refused: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, token: tuple[str, str]) -> bool:
        """Whether a token, with the secret that would have signed it, was refused."""
        refused_at = self._refused.get(_digest(*token))
        return refused_at is not None and self._clock.monotonic() - refused_at < self._seconds

    def add(self, text: str, secret: str) -> None:
        """This token is not signed with this secret."""
        digest = _digest(text, secret)
        self._refused[digest] = self._clock.monotonic()
        self._refused.move_to_end(digest)
        if len(self._refused) > self._most:
            self._refused.popitem(last=False)


def _digest(text: str, secret: str) -> bytes:
    key = hashlib.sha256(secret.encode(errors="surrogatepass")).digest()
    return hashlib.blake2b(text.encode(errors="surrogatepass"), key=key, digest_size=20).digest()
