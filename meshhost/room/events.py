"""Named events with any number of handlers, in the shape MeshAgent programs use: `on`, `off`, `emit`.

`RoomClient` and the service clients each own an `EventEmitter` and emit from the task that reads the connection. A handler that
raises is logged and never stops the reading or the other handlers; inside an agent that holds for `sys.exit()` too, which ends
that agent (`containment`). A handler that is a coroutine function runs as a task of the room, around which `logged` stands.
"""

import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from meshhost.containment import is_contained
from meshhost.errors import ConnectionLostError
from meshhost.guard import guarded

__all__ = ["EventEmitter", "Spawn", "logged"]

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None], str], object]


class EventEmitter:
    """Handlers get the event's fields as keyword arguments.

    A plain handler runs at once. The coroutine of an async one runs as a task made by `spawn`, which must log its error.
    """

    __slots__ = ("_handlers", "_spawn")

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        # Made at first use: most emitters of a room never get a handler.
        self._handlers: dict[str, list[Callable[..., Any]]] | None = None

    def on(self, event_name: str, func: Callable[..., Any]) -> None:
        """Call `func` at each event of this name."""
        if self._handlers is None:
            self._handlers = {}
        self._handlers.setdefault(event_name, []).append(func)

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`; unknown handlers are ignored."""
        handlers = (self._handlers or {}).get(event_name, [])
        if func in handlers:
            handlers.remove(func)

    def close(self) -> None:
        """Drop all handlers and `spawn`, which refers back to the room; events emitted later reach nobody."""
        self._handlers = None
        self._spawn = _discard

    def emit(self, event_name: str, **fields: Any) -> None:
        """Call the handlers in the order they were added. The error of a handler is logged, and the others still run."""
        for handler in tuple((self._handlers or {}).get(event_name, ())):
            try:
                result = handler(**fields)
            except BaseException as error:
                if not is_contained(error):
                    raise
                logger.exception("event handler raised", extra={"event": event_name})
                continue
            if inspect.iscoroutine(result):
                self._spawn(result, f"handler of {event_name}")


async def logged(coroutine: Coroutine[Any, Any, None], name: str) -> None:
    """Run a task of the room. Its error is logged, unless it ends the agent; the loss of the connection is no error."""
    try:
        await guarded(coroutine)
    except ConnectionLostError:
        logger.debug("ended with the connection", extra={"task": name})
    except BaseException as error:
        if not is_contained(error):
            raise
        logger.exception("room task failed", extra={"task": name})


def _discard(coroutine: Coroutine[Any, Any, None], name: str) -> None:
    coroutine.close()
