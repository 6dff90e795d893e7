"""Reports what an agent logs while it works on messages to the room server (room-protocol §12.2), for the log of the room.

Lines come from `meshhost.work_log` and go in batches (`reporting.py`). An agent that logs without end costs its own lines: of
more than `_PER_SECOND` for long, those that are too many are left out, and the next line that is reported says how many.
"""

from dataclasses import replace
from typing import Any

from meshhost.quotas.token_bucket import TokenBucket
from meshhost.room.link import RoomLink
from meshhost.room.services.reports.reporting import Reporter
from meshhost.work_log.line import MAX_BATCH, Line

__all__ = ["LogLinesClient"]

_PER_SECOND, _AT_ONCE = 50.0, 500.0


class LogLinesClient(Reporter[Line]):
    """Takes lines and sends them; a `LineSink`."""

    extension, operation, member, max_batch = "log_lines", "developer.report", "lines", MAX_BATCH

    def __init__(self, *, room: RoomLink) -> None:
        super().__init__(room=room)
        self._rate = TokenBucket(_PER_SECOND, _AT_ONCE, clock=room.clock)
        self._left_out = 0

    def may_add(self) -> bool:
        """See LineSink."""
        if self._rate.wait() > 0:
            self._count_dropped(1)
            return False
        self._rate.take()
        return True

    def add(self, one: Line) -> None:
        """Report a line soon, when `may_add` said so. Any thread may call this."""
        left_out, self._left_out = self._left_out, 0
        super().add(replace(one, fields={**one.fields, "lines_left_out": left_out}) if left_out else one)

    def _as_json(self, one: Line) -> dict[str, Any]:
        return one.as_json()

    def _count_dropped(self, number: int) -> None:
        self._left_out += number
