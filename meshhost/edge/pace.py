"""How fast a site accepts connections: those of nobody known may take a share of the event loop's time, and no more.

A new connection costs the loop some 0.5 ms until its request is refused or its sender is known. Anybody may open
thousands per second, and everybody who is connected shares the loop with them. So `Acceptor` asks `Pace` before each `accept`.
What is not accepted yet waits in the system's queue of connections and costs nothing.

`Pace` is a token bucket of CPU seconds. It is filled with `share` of the time that passes and holds little, so that connections
come evenly and not in bursts. Each accepted connection is charged with what one costs on average: what is measured of it
(`Newcomer`), which depends on how its sender is checked, and a constant for what is not. Nothing is charged while the loop has
nothing else to do: a crowd that joins a server at rest is accepted as fast as the loop can. Something else to do is data from
somebody who is known, or a tenth of the time spent on other things than newcomers. The amount alone would not tell: those that
a flood has slowed down ask for less. Nor is it enough that the loop is idle most of the time: sixteen connections at once,
accepted at once, are 16 ms in which nobody else is answered.

Why one bound for all newcomers, and not one for each address: before authentication an address is all that is known, behind a
proxy everybody has the same one, and an attacker may have many. Who is connected already is protected in any case. Who is not
waits in the system's queue behind those that came earlier, from any address; to sort these belongs in front of the server.

All times are CPU time of the loop's thread: what other processes take must not count as the cost of a connection. For the same
reason the share is one of the time that the thread could have had, without that in which it waited for a CPU: on a busy
machine, or in a container with a limit, a share of all time could be more than there is. Linux tells that time; elsewhere it
counts as 0. Nothing here awaits.
"""

import time
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import coroutine
from typing import Any, TypeVar

__all__ = ["Newcomer", "Pace", "waited_for_cpu"]

T = TypeVar("T")

# What the bucket holds: about five connections.
_BURST_SECONDS = 0.002
# Of a connection, until one was measured, and the most that one measurement may say.
_FIRST_COST = 0.0005
_MOST_COST = 0.005
_WEIGHT = 0.1
# Opening and closing a socket, writing the answer and the loop's own work cannot be measured from here. They are much the same
# for all, however long their senders take to check: of a connection that is refused for its key 0.12 of 0.55 ms is seen.
_UNSEEN = 0.0004
# Newcomers are alone in a window in which nobody known sent anything and less than this share went into other things.
_OTHERS_SHARE = 0.1
_WINDOW_SECONDS = 0.05
# However busy the machine is, somebody is accepted.
_LEAST_AVAILABLE = 0.05
_SCHEDULED = Path("/proc/thread-self/schedstat")


def waited_for_cpu() -> float:
    """Seconds for which this thread was ready and got no CPU; 0 where the system does not say."""
    try:
        return int(_SCHEDULED.read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Pace:
    """Decides when the next connection may be accepted.

    `clock`, `cpu` and `starved` return seconds: now, those that this thread has used, and those that it waited for a CPU.
    """

    def __init__(
        self,
        share: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
        starved: Callable[[], float] = waited_for_cpu,
    ) -> None:
        self._share = share
        self._clock = clock
        self._cpu = cpu
        self._starved = starved
        self.cost = _FIRST_COST
        self._balance = _BURST_SECONDS
        self._filled_at = clock()
        self._window_began = (self._filled_at, cpu(), starved())
        # The part of the time that the thread could have had in the last window.
        self._available = 1.0
        self._of_newcomers = 0.0
        self.has_known_work = False
        """Set when data comes from somebody who is known."""
        self._is_alone = True

    def wait(self) -> float:
        """Seconds until a connection may be accepted; 0 when one may now."""
        now = self._clock()
        self._look(now)
        rate = self._share * self._available
        self._balance = min(self._balance + (now - self._filled_at) * rate, _BURST_SECONDS)
        self._filled_at = now
        return 0.0 if self._is_alone or self._balance > 0 else -self._balance / rate

    def accept(self) -> None:
        """Charge a connection."""
        if not self._is_alone:
            self._balance -= self.cost

    def learn(self, seconds: float) -> None:
        """A newcomer took so many CPU seconds, as far as they were measured."""
        cost = min(seconds + _UNSEEN, _MOST_COST)
        self._of_newcomers += cost
        self.cost += (cost - self.cost) * _WEIGHT

    def cpu(self) -> float:
        """CPU seconds of this thread."""
        return self._cpu()

    def _look(self, now: float) -> None:
        since, cpu_then, starved_then = self._window_began
        passed = now - since
        if passed < _WINDOW_SECONDS:
            return
        cpu, starved = self._cpu(), self._starved()
        busy = cpu - cpu_then
        available = max(passed - (starved - starved_then), busy, passed * _LEAST_AVAILABLE)
        self._available = min(available / passed, 1.0)
        self._is_alone = not self.has_known_work and busy - self._of_newcomers < _OTHERS_SHARE * available
        self._window_began, self._of_newcomers, self.has_known_work = (now, cpu, starved), 0.0, False


class Newcomer:
    """Measures what one connection costs until its sender is known or refused."""

    __slots__ = ("_began", "_has_ended", "_pace", "_seconds")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._seconds = 0.0
        self._began: float | None = None
        self._has_ended = False

    def __enter__(self) -> None:
        self._began = self._pace.cpu()

    def __exit__(self, *_: object) -> None:
        if self._began is not None:
            self._seconds += self._pace.cpu() - self._began
            self._began = None

    @coroutine
    def measured(self, work: Awaitable[T]) -> Generator[Any, Any, T]:
        """Await the work, and measure its steps until `end`; not what other tasks do between them."""
        steps: Any = work.__await__()
        error: BaseException | None = None
        result: T
        while True:
            try:
                with self:
                    waits_for = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as end:
                result = end.value
                return result
            try:
                yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - a cancellation, for the work
                error = thrown
            else:
                error = None
                if self._has_ended:
                    result = yield from steps
                    return result

    def end(self) -> None:
        """It is measured."""
        self.__exit__()
        self._has_ended = True
        self._pace.learn(self._seconds)
