"""Tells what a room client of SDK 0.56 offers: the public methods of it and of each client that it has."""

import asyncio
import inspect

from lines import say
from meshagent.api import RoomClient, WebSocketClientProtocol

# What a program has of a client, but no request to the room.
OWN = {"on", "off", "emit", "start", "stop"}


def public(thing: object) -> list[str]:
    """Its public methods."""
    found = inspect.getmembers(type(thing), inspect.isfunction)
    return sorted(name for name, _ in found if not name.startswith("_") and name not in OWN)


async def main() -> None:
    room = RoomClient(protocol_factory=lambda: WebSocketClientProtocol(url="ws://localhost", token="x"))
    clients = {}
    for name in dir(room):
        try:
            value = getattr(room, name)
        except Exception:  # noqa: BLE001 - a property of a room that is ready
            continue
        if not name.startswith("_") and type(value).__name__.endswith("Client"):
            clients[name] = public(value)
    say(clients=clients, room=public(room))


asyncio.run(main())
