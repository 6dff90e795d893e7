"""Lets what is logged while a message is processed and settled belong to that message."""

from contextlib import AbstractContextManager, nullcontext

from meshhost.room.client import RoomClient
from meshhost.room.services.queues import LeasedMessage
from meshhost.work_log.line import Worked
from meshhost.work_log.recording import logging_work

__all__ = ["logged"]


def logged(leased: LeasedMessage, room: RoomClient) -> AbstractContextManager[None]:
    """Name the message in each record that is logged inside, and report the records to a room that keeps them."""
    if leased.id is None:
        return nullcontext()
    lines = getattr(room, "log_lines", None)  # a stand-in of a program's tests has none
    worked = Worked(leased.queue, leased.id, leased.attempt)
    return logging_work(worked, lines if lines is not None and lines.is_offered else None)
