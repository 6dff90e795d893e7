"""How a test and a program in the SDK's Python talk: the input is one argument, then JSON lines in both directions."""

import asyncio
import json
import sys
from typing import Any

from meshagent.api import RoomClient, WebSocketClientProtocol

given: dict[str, Any] = json.loads(sys.argv[1])


def say(**fields: Any) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def heard() -> Any:
    """What the test tells next; None when it tells nothing any more."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


def room_client(which: str = "token") -> RoomClient:
    """A client of the room in the input, by one of the tokens in it."""
    return RoomClient(protocol=WebSocketClientProtocol(url=given["url"], token=given[which]))


async def error_of(doing: Any) -> str:
    """The text of the error that an awaitable ends with; the result when it does not."""
    try:
        result = await doing
    except Exception as error:  # noqa: BLE001 - it is what the test asks for
        return f"{type(error).__name__}: {error}"
    return f"no error but {result!r}"
