"""Options that several command groups have, so that they have one name and one text everywhere.

A command takes one by annotating a parameter with it: `room: RoomOption = None`.
"""

from typing import Annotated

import typer

__all__ = ["JsonOption", "QueueOption", "RoomOption"]

RoomOption = Annotated[
    str | None, typer.Option("--room", metavar="NAME", help="Name of the room (default: MESHHOST_ROOM).")
]
QueueOption = Annotated[str, typer.Option("--queue", metavar="NAME", help="Name of the queue.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
