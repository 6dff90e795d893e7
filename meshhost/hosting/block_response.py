"""What a host does about paths whose agents block the event loop.

The watchdog calls `blocked` in the event loop when a block is over. Blocks are counted by path; with `on_block="isolate"` a
path that blocked the loop often enough gets processes from the next start of its agents on, and then blocks only itself.
"""

import logging
from collections import Counter

from meshhost.errors import SettingsError
from meshhost.hosting.calls.route import Route, Routes
from meshhost.hosting.observe.metrics import HostMetrics
from meshhost.hosting.observe.watchdog import Block
from meshhost.hosting.processes.pool import ProcessPool

__all__ = ["BlockResponse"]

logger = logging.getLogger(__name__)


class BlockResponse:
    """Counts blocks, and moves a path to processes after `blocks_allowed` of them (None: never)."""

    def __init__(self, *, routes: Routes, pool: ProcessPool, metrics: HostMetrics, blocks_allowed: int | None) -> None:
        self._routes = routes
        self._pool = pool
        self._metrics = metrics
        self._blocks_allowed = blocks_allowed
        self._blocks: Counter[str] = Counter()

    def blocked(self, block: Block) -> None:
        """An observer of the watchdog."""
        route = None if block.agent is None else self._routes.get(block.agent.path)
        self._metrics.count_block("" if route is None else route.path)
        if route is None:
            return
        self._blocks[route.path] += 1
        is_due = self._blocks_allowed is not None and self._blocks[route.path] >= self._blocks_allowed
        if is_due and not self._routes.needs_process(route):
            self._isolate(route)

    def _isolate(self, route: Route) -> None:
        fields = {"path": route.path, "blocks": self._blocks[route.path]}
        try:
            self._pool.check_program()
        except SettingsError as error:
            logger.warning("path cannot be given processes", extra={**fields, "reason": str(error)})
            return
        logger.warning("path blocks the event loop and gets processes", extra=fields)
        self._routes.isolate(route.path)
