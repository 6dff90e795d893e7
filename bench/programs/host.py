"""Runs the same host with either package: `python host.py meshhost|meshagent PORT [process]`.

It imports one of the two packages by name, so that it runs in an environment without the other.
"""

import asyncio
import importlib
import sys
from typing import Any

package, port = sys.argv[1], int(sys.argv[2])
options = {"isolation": sys.argv[3]} if len(sys.argv) > 3 else {}
host: Any = importlib.import_module(f"{package}.api.services").ServiceHost(host="127.0.0.1", port=port)


@host.path("/idle", identity="idle", **options)
class Idle:
    """An agent that says that it has started, and then is idle."""

    async def start(self, *, room: Any) -> None:
        """Tell the stand-in room that it has started."""
        await room.developer.log(type="started", data={})

    async def stop(self) -> None:
        """Nothing to stop."""


asyncio.run(host.run())
