"""The last error of an agent, as text: for `meshhost host describe`, REST and the log.

An error holds its frames, and these what the agent was working with. `ErrorReport` keeps bounded text only. It also says when a
traceback is worth its lines in a log: an agent that is started again with the same mistake fails at the same place, and some
errors exist to say in one line what is wrong.
"""

import traceback
from dataclasses import dataclass

from meshhost.errors import ConnectionLostError, InvalidRequestError, SettingsError

__all__ = ["ErrorReport"]

_MAX_TEXT = 1_000
_MAX_TRACEBACK = 2_048


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as kept and shown. It keeps no frames alive, and its size is bounded."""

    type: str
    text: str
    traceback: str
    """The last 2 KB of the traceback."""

    @classmethod
    def of(cls, error: Exception) -> "ErrorReport":
        """Describe the error; a group of one error is described by that error."""
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        try:
            text = str(error)
        except BaseException:  # noqa: BLE001 - the error is an agent's own class and may fail in any way
            text = "(the error cannot be shown as text)"
        frames = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, text[:_MAX_TEXT], frames[-_MAX_TRACEBACK:])

    def needs_traceback(self, error: Exception, before: "ErrorReport | None") -> bool:
        """Whether a traceback of this error says more than its line and the report before."""
        if isinstance(error, SettingsError | InvalidRequestError | ConnectionLostError):
            return False
        return before is None or (before.type, before.text) != (self.type, self.text)
