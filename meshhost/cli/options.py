"""Options that several commands have."""

from typing import Annotated

import typer

__all__ = ["JsonOption", "QueueOption", "RoomOption"]

RoomOption = Annotated[
    str | None, typer.Option("--room", metavar="NAME", help="The room's name (default: MESHHOST_ROOM).")
]
QueueOption = Annotated[str, typer.Option("--queue", metavar="NAME", help="The queue's name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
