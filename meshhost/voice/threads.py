"""`ThreadTranscript`: writes the lines of a voice call into a thread document of the room.

The document is one of chat threads, so that Studio shows it while the call goes on, and a chat bot can go on with the
conversation later. A line has its speaker's name, and the time at which it began; its `author_ref` says that it was spoken, and
for how many milliseconds. Edits are local and travel in the background: only `open` and `close` wait for the room server, each
with a bound. A transcript that cannot be written is logged, and the call goes on without.
"""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from meshhost.agents.chat.log import ThreadLog, new_thread
from meshhost.agents.chat.schema import ensure_thread_schema
from meshhost.errors import AlreadyExistsError, InvalidRequestError, RoomError
from meshhost.voice.carrier import Carrier
from meshhost.voice.transcript import Line, Speaker

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["SPOKEN", "CallTranscript", "ThreadTranscript"]

logger = logging.getLogger(__name__)

# The kind of a message that was spoken, in `author_ref`; the milliseconds follow.
SPOKEN = "meshhost:spoken:"
_SECONDS = 10.0


class ThreadTranscript:
    """The transcript of a call between `caller` and `agent`, by their names, in the document at `path`."""

    def __init__(self, room: "RoomClient", path: str, *, caller: str, agent: str) -> None:
        self._room = room
        self._path = path
        self._names = {Speaker.CALLER: caller, Speaker.AGENT: agent}
        self._log: ThreadLog | None = None

    def __repr__(self) -> str:
        return f"<ThreadTranscript {self._path!r} open={self._log is not None}>"

    async def open(self) -> None:
        """Open the document, made if it is not there. Raises RoomError, TimeoutError."""
        members = list(self._names.values())
        async with asyncio.timeout(_SECONDS):
            await ensure_thread_schema(self._room)
            with contextlib.suppress(AlreadyExistsError):
                await self._room.sync.create(path=self._path, json=new_thread(members=members))
            self._log = ThreadLog(await self._room.sync.open(path=self._path, create=False))
            self._log.add_members(members)

    async def add(self, line: Line) -> None:
        """Append a line."""
        if self._log is None:
            return
        ref = f"{SPOKEN}{max(0, round((line.ended - line.began) * 1000))}"
        text = f"{line.text} …" if line.is_cut else line.text
        try:
            element = self._log.add(text, author=self._names[line.speaker], ref=ref)
            began = datetime.fromtimestamp(line.began, UTC).isoformat(timespec="milliseconds")
            element.set_attribute("created_at", began.replace("+00:00", "Z"))
        except InvalidRequestError as error:  # the room has its own schema of threads, or the document was damaged
            logger.warning("a line was not transcribed", extra={"document": self._path, "reason": str(error)})

    async def close(self) -> None:
        """Return when the transcript is on the server's disk, or after some seconds."""
        if self._log is None:
            return
        self._log = None
        try:
            async with asyncio.timeout(_SECONDS):
                await self._room.sync.flush(self._path)
                await self._room.sync.close(path=self._path)
        except (RoomError, TimeoutError) as error:
            logger.warning("a transcript was not saved", extra={"document": self._path, "reason": str(error)})


class CallTranscript:
    """What a thinker writes to: lines go to the caller, and into the thread if there is one."""

    def __init__(self, carrier: Carrier, thread: ThreadTranscript | None) -> None:
        self._carrier = carrier
        self._thread = thread

    async def add(self, line: Line) -> None:
        """Take a line."""
        await self._carrier.caption(line)
        if self._thread is not None:
            await self._thread.add(line)
