"""Whether a host takes calls, as one value that its parts share.

The assembly opens the intake when the ledger's agents are started and closes it when the host stops or an operator drains it;
`http.routes` checks it before it reads a call. It never opens again after it was closed.
"""

from typing import Literal

from meshhost.errors import CallRefusedError
from meshhost.hosting.refusals import RETRY_SOON_SECONDS

__all__ = ["Intake"]


class Intake:
    """`refuses` says why no call is taken: the host is `starting` or `draining`; None while calls are taken."""

    def __init__(self) -> None:
        self.refuses: Literal["starting", "draining"] | None = "starting"

    def __repr__(self) -> str:
        return f"<Intake refuses={self.refuses}>"

    def open(self) -> None:
        """Take calls. No effect after `close`."""
        if self.refuses == "starting":
            self.refuses = None

    def close(self) -> None:
        """Take no more calls."""
        self.refuses = "draining"

    def check(self) -> None:
        """Raises CallRefusedError (503) unless calls are taken."""
        if self.refuses is not None:
            raise CallRefusedError(f"this host is {self.refuses}", status=503, retry_after=RETRY_SOON_SECONDS)
