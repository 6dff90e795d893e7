"""`Incoming`: the caller's sound on its way to the provider, and what is kept of it in case that must be sent again.

Sound waits here while there is no session to send it to, so that a renewal or a lost connection swallows no word. What the
caller says now is kept until the turn has ended: a session that begins in the middle of a turn gets all of it. Bounded: of what
is too much, the oldest is dropped. Pure, no I/O; PCM16 of one rate.
"""

from collections import deque

__all__ = ["Incoming"]

# Before the provider reports speech it has begun already.
_BEFORE_MS = 1_000
_MOST_MS = 60_000


class Incoming:
    """Takes sound by `add`, gives it by `take`."""

    def __init__(self, bytes_per_ms: int, *, most_ms: float = _MOST_MS) -> None:
        self._per_ms = bytes_per_ms
        self._most = int(most_ms * bytes_per_ms)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sent: deque[bytes] = deque()
        self._sent_bytes = 0
        self._is_speech = False

    def __repr__(self) -> str:
        return f"<Incoming waiting_ms={self.waiting_ms:.0f} kept_ms={self._sent_bytes / self._per_ms:.0f}>"

    @property
    def waiting_ms(self) -> float:
        """How much is to be sent."""
        return self._waiting_bytes / self._per_ms

    def add(self, pcm: bytes) -> None:
        """Sound of the caller, the newest."""
        self._waiting.append(pcm)
        self._waiting_bytes += len(pcm)
        while self._waiting_bytes > self._most:
            self._waiting_bytes -= len(self._waiting.popleft())

    def take(self, most_ms: float) -> bytes:
        """What is sent next, at most about this much; it counts as sent."""
        pieces: list[bytes] = []
        size = 0
        while self._waiting and size < most_ms * self._per_ms:
            pieces.append(self._waiting.popleft())
            size += len(pieces[-1])
        self._waiting_bytes -= size
        self._sent += pieces
        self._sent_bytes += size
        self._forget()
        return b"".join(pieces)

    def begin_speech(self) -> None:
        """The caller speaks: keep what is sent."""
        self._is_speech = True

    def end_speech(self) -> bytes:
        """The turn has ended. Returns its sound."""
        sound = b"".join(self._sent)
        self._is_speech = False
        self._forget()
        return sound

    def rewind(self) -> None:
        """What was sent of the present turn went to a session that is over: it is to be sent again."""
        if self._is_speech:
            self._waiting.extendleft(reversed(self._sent))
            self._waiting_bytes += self._sent_bytes
        self._is_speech = False
        self._sent.clear()
        self._sent_bytes = 0

    def _forget(self) -> None:
        most = self._most if self._is_speech else _BEFORE_MS * self._per_ms
        while self._sent_bytes > most:
            self._sent_bytes -= len(self._sent.popleft())
