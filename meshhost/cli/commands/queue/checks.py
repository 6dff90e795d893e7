"""What commands check before and after they ask the room: that a queue exists, and that something may be deleted for good.

A queue that does not exist is most often misspelt, so the error names the queues whose names are near. What cannot be undone
is asked for at a terminal; a program, which nobody can ask, says `--yes`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient
    from meshhost.room.services.queues import Queue

__all__ = ["YesOption", "confirm", "need_queue", "queue_named"]

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_MAX_NAMED = 10
_MAX_NEAR = 3


async def need_queue(client: RoomClient, name: str) -> Queue:
    """Return the queue of this name. Raises NotFoundError, which names the queues that it may be, or all."""
    import difflib

    from meshhost.errors import NotFoundError

    queues = await client.queues.list()
    found = next((queue for queue in queues if queue.name == name), None)
    if found is not None:
        return found
    names = [queue.name for queue in queues]
    near = difflib.get_close_matches(name, names, n=_MAX_NEAR)
    if near:
        more = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        more = f"there are: {', '.join(names[:_MAX_NAMED] + ['…'] * (len(names) > _MAX_NAMED)) or 'none'}"
    raise NotFoundError(f"no queue {name!r} in room {client.room_name}; {more}")


@asynccontextmanager
async def queue_named(client: RoomClient, name: str) -> AsyncIterator[None]:
    """For requests about a queue: when one raises NotFoundError because there is no such queue, say which there are."""
    from meshhost.errors import AccessDeniedError, NotFoundError

    try:
        yield
    except NotFoundError as error:
        try:
            await need_queue(client, name)
        except AccessDeniedError:  # the token may not list the queues
            raise error from None
        raise


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether something may be done that cannot be undone.

    Raises Abort unless the answer is yes, BadParameter when nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("give it: standard input is no terminal to ask at", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)
