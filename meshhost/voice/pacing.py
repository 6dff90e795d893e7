"""`Playhead`: how far a listener has come in what was sent, for carriers whose other end does not tell.

Sound that is sent is heard at the pace of time. From when each piece was sent follows what has been heard by now, and so how
much an interruption still drops, and when the next piece may be sent without running away. Time is passed in; no task.
"""

from meshhost.clock import Clock
from meshhost.voice.audio import Sound

__all__ = ["Playhead"]


class Playhead:
    """Says what of the sound that was sent is still to be heard. At most `lead_ms` are sent ahead of the ear.

    Sending resumes at half the lead: several frames then travel in one message.
    """

    def __init__(self, clock: Clock, *, lead_ms: float) -> None:
        self._clock = clock
        self._lead = lead_ms / 1000
        self._heard_until = 0.0  # when all that was sent will have been heard

    def __repr__(self) -> str:
        return f"<Playhead unheard_ms={self.unheard_ms:.0f}>"

    @property
    def unheard_ms(self) -> float:
        """Milliseconds that were sent and not heard."""
        return max(0.0, self._heard_until - self._clock.monotonic()) * 1000

    def sent(self, sound: Sound) -> None:
        """Note that this sound was sent now."""
        self._heard_until = max(self._heard_until, self._clock.monotonic()) + sound.ms / 1000

    @property
    def seconds_to_wait(self) -> float:
        """How long to wait before more is sent."""
        ahead = self._heard_until - self._clock.monotonic()
        return ahead - self._lead / 2 if ahead > self._lead else 0.0

    def drop(self) -> float:
        """Forget what was not heard; return how many milliseconds that were."""
        dropped = self.unheard_ms
        self._heard_until = 0.0
        return dropped
