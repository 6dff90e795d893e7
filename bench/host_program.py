"""The same host for either package: `python host_program.py meshhost|meshagent PORT [process]`. Runs without the other one."""

import asyncio
import importlib
import sys
from typing import Any

package, port = sys.argv[1], int(sys.argv[2])
options = {"isolation": sys.argv[3]} if len(sys.argv) > 3 else {}
host: Any = importlib.import_module(f"{package}.api.services").ServiceHost(host="127.0.0.1", port=port)


@host.path("/idle", identity="idle", **options)
class Idle:
    """Says that it has started, then waits."""

    async def start(self, *, room: Any) -> None:
        """Tell the stand-in room."""
        await room.developer.log(type="started", data={})

    async def stop(self) -> None:
        """Nothing to end."""


asyncio.run(host.run())
