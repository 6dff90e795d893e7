"""How a test and a program in the Python of SDK 0.56 talk: the input is one argument, then JSON lines in both directions."""

import asyncio
import json
import sys
from typing import Any

from meshagent.api import RoomClient, WebSocketClientProtocol

given: dict[str, Any] = json.loads(sys.argv[1])


def say(**fields: Any) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(fields, default=str) + "\n")
    sys.stdout.flush()


async def heard() -> Any:
    """What the test tells next; None when it tells nothing any more."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


def room_client() -> RoomClient:
    """A client of the room in the input, which comes back when its connection is lost."""
    return RoomClient(protocol_factory=lambda: WebSocketClientProtocol(url=given["url"], token=given["token"]))


async def error_of(doing: Any) -> Any:
    """Code and text of the error that an awaitable ends with; the result when it does not."""
    try:
        result = await doing
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        return [getattr(error, "code", None), str(error)]
    return f"no error but {result!r}"
