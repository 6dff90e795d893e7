"""Named events of documents, elements and texts, with the methods of the MeshAgent API (`on`, `off`, `emit`).

Handlers run at once, in the task that made or received the edit, in the order in which they were added. An error of a handler
is logged: an observer must not undo an edit that is already part of the document.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Emitter"]

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class Emitter:
    """Named events with plain functions as handlers. An error of a handler is logged; the others are still called."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Callable[..., Any]]] = {}

    def on(self, event_name: str, func: F | None = None) -> Any:
        """Call `func` at each event of this name. Without `func`, return a decorator that adds the function below it."""
        if func is None:
            return lambda decorated: self.on(event_name, decorated)
        self._handlers.setdefault(event_name, []).append(func)
        return func

    def off(self, event_name: str, func: Callable[..., Any]) -> None:
        """Undo `on`; unknown handlers are ignored."""
        handlers = self._handlers.get(event_name, [])
        if func in handlers:
            handlers.remove(func)

    def emit(self, event_name: str, *fields: Any) -> None:
        """Call the handlers in the order they were added."""
        for handler in tuple(self._handlers.get(event_name, ())):
            try:
                handler(*fields)
            except Exception:
                logger.exception("document event handler raised", extra={"event": event_name})
