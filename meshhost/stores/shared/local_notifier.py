"""The notifier of engines that one process has for itself (memory, SQLite): hints go from one service to the others here.

Usually there is one `QueueService` in a process, and publishing does nothing. Several share a notifier when several
room servers run in one process over one engine, as in tests.
"""

from meshhost.stores.notifier import Hint, Listener

__all__ = ["LocalNotifier"]


class LocalNotifier:
    """Keeps the contract of Notifier within one event loop: listeners are called before `publish` returns."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._is_open = False

    async def open(self) -> None:
        """See Notifier."""
        self._is_open = True

    async def close(self) -> None:
        """See Notifier."""
        self._is_open = False

    def subscribe(self, listener: Listener) -> None:
        """See Notifier."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """See Notifier."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def publish(self, hint: Hint, *, by: Listener) -> None:
        """See Notifier."""
        if not self._is_open:
            return
        # A copy: a listener may unsubscribe while it is called.
        for listener in tuple(self._listeners):
            if listener != by:
                listener(hint)
