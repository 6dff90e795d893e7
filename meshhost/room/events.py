"""Named events with any number of handlers, in the shape MeshAgent programs use."""

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["EventEmitter", "Spawn"]

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class EventEmitter:
    """Handlers get the event's fields as keyword arguments. Plain handlers run at once, async ones as tasks of the room.

    `spawn` logs the error of a task that fails.
    """

    __slots__ = ("_handlers", "_spawn")

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        # Made when needed: most emitters of a room never get a handler.
        self._handlers: dict[str, list[Callable[..., Any]]] | None = None

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at every such event."""
        if self._handlers is None:
            self._handlers = {}
        self._handlers.setdefault(event_name, []).append(func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`; unknown handlers are ignored."""
        handlers = (self._handlers or {}).get(event_name, [])
        if func in handlers:
            handlers.remove(func)

    def close(self) -> None:
        """Forget all handlers, and how their tasks are run: nothing is emitted any more."""
        self._handlers = None
        self._spawn = _discard

    def emit(self, event_name: str, **fields: Any) -> None:
        """Call the handlers in the order they were added. A handler that raises is logged and keeps nobody back."""
        for handler in tuple((self._handlers or {}).get(event_name, ())):
            try:
                result = handler(**fields)
            except Exception:
                logger.exception("event handler raised", extra={"event": event_name})
                continue
            if inspect.iscoroutine(result):
                self._spawn(result, f"handler of {event_name}")


def _discard(coroutine: Coroutine[Any, Any, None], name: str) -> None:
    coroutine.close()
