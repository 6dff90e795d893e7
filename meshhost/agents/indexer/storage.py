"""`StorageIndexer`: keeps a table with the texts of a room's files, and their vectors, as the files change.

Events only say which file to look at: whether it is there, and what is in it, is asked when its turn comes. So a file that
changes ten times is read once more, and an event that is lost or doubled costs nothing. After the start and after each
reconnect all files are compared with the table, since nobody told what happened in between.

One task does the work, one file after another. A file that cannot be read, embedded or stored is tried again, later and
later, and never stops the others.
"""

import asyncio
import logging
import mimetypes
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshhost.agents.base import SingleRoomAgent
from meshhost.agents.indexer.chunks import ChonkieChunker, Chunker
from meshhost.agents.indexer.embedders import Embedder, open_ai_embedding_3_large
from meshhost.agents.indexer.table import ChunkTable
from meshhost.backoff import Backoff
from meshhost.errors import LimitExceededError, NotFoundError
from meshhost.guard import guarding
from meshhost.room.requirements import Requirement
from meshhost.tasks import TaskOwner

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["FileIndexEvent", "StorageIndexer"]

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 10 * 1024 * 1024
_MAX_CHUNKS = 5000
_MAX_TRIES = 6
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/toml"})


@dataclass(frozen=True, slots=True)
class FileIndexEvent:
    """A file that changed or was deleted."""

    path: str
    deleted: bool


class StorageIndexer(SingleRoomAgent):
    """Indexes the files of its room in the table `table`; override `read_file` to read more than plain texts.

    The name of a file is a chunk of its own. `chunker` cuts the text of a file, `embedder` makes the vectors; without them
    `ChonkieChunker` and OpenAI's large embedder are used. Seconds: `refresh_seconds` after the last change the indexes of the
    table are brought up to date, or `max_refresh_seconds` after the first.
    """

    refresh_seconds: float = 10.0
    max_refresh_seconds: float = 60.0
    retry = Backoff(first_delay=1.0, max_delay=60.0)

    def __init__(
        self,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
        chunker: Chunker | None = None,
        embedder: Embedder | None = None,
        table: str = "storage_index",
    ) -> None:
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        self.chunker = ChonkieChunker() if chunker is None else chunker
        self.embedder = open_ai_embedding_3_large() if embedder is None else embedder
        self.table = table
        self._work = TaskOwner(f"indexer {self.name}")
        # The files to look at, oldest first: how often each was tried in vain, and when it is to be tried (the loop's time).
        self._pending: dict[str, tuple[int, float]] = {}
        self._changed = asyncio.Event()
        self._compare = False
        self._at_work: str | None = None
        self._idle = asyncio.Event()

    @property
    def activity(self) -> str | None:
        """How many files wait to be indexed."""
        waiting = len(self._pending) + (self._at_work is not None)
        return f"indexing, {waiting} files" if waiting else None

    async def read_file(self, *, path: str) -> str | None:
        """Return the text of a file; None for one whose name alone is indexed, as here all that are no plain texts."""
        kind = mimetypes.guess_type(path)[0] or ""
        if not kind.startswith("text/") and kind not in _TEXTS:
            return None
        file = await self.room.storage.download(path=path)
        if len(file.data) > MAX_FILE_BYTES:
            raise LimitExceededError(f"{path!r} has over {MAX_FILE_BYTES} bytes: only its name is indexed")
        return file.data.decode(errors="replace")

    async def start(self, *, room: "RoomClient") -> None:
        """Create the table unless it is there, and keep it up to date from now on."""
        await super().start(room=room)
        try:
            chunks = ChunkTable(room, self.table, self.embedder)
            await chunks.ensure()
        except BaseException:
            await super().stop()
            raise
        room.storage.on("file.updated", self._on_file_updated)
        room.storage.on("file.deleted", self._on_file_deleted)
        room.on("reconnected", self._look_at_all)
        self._look_at_all()
        self._work.spawn(self._run(chunks), name="files")

    async def drain(self) -> None:
        """Return when all files that are known to have changed are indexed. The caller must set a timeout."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Stop in the middle of a file, if need be: it is indexed after the next start. Idempotent."""
        if self._room is None:
            return
        self._room.storage.off("file.updated", self._on_file_updated)
        self._room.storage.off("file.deleted", self._on_file_deleted)
        self._room.off("reconnected", self._look_at_all)
        await self._work.stop(timeout=self.stop_seconds)
        await super().stop()

    def _on_file_updated(self, path: str, participant_id: str) -> None:
        self._look_at(path)

    def _on_file_deleted(self, path: str, participant_id: str) -> None:
        self._look_at(path)

    def _look_at(self, path: str) -> None:
        if not any(part.startswith(".") for part in path.split("/")):  # schemas, threads and the like
            self._pending.pop(path, None)
            self._pending[path] = 0, 0.0
            self._wake()

    def _look_at_all(self, **_: Any) -> None:
        self._compare = True
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._changed.set()

    async def _run(self, chunks: ChunkTable) -> None:
        loop = asyncio.get_running_loop()
        first_change: float | None = None
        while True:
            self._changed.clear()
            if self._compare:
                self._compare = not await self._tried(self._compared(chunks), "all files")
            elif (path := self._due()) is not None:
                await self._one(chunks, path)
                first_change = first_change or loop.time()
                if loop.time() - first_change > self.max_refresh_seconds:
                    await self._tried(chunks.refresh(), "indexes")
                    first_change = None
            elif self._pending:  # all of them failed, and wait
                await self._quiet(min(due for _, due in self._pending.values()) - loop.time())
            else:
                self._idle.set()
                if await self._quiet(None if first_change is None else self.refresh_seconds):
                    await self._tried(chunks.refresh(), "indexes")
                    first_change = None

    async def _quiet(self, seconds: float | None) -> bool:
        """Whether nothing changed within so many seconds; without a time, wait for a change."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return True
        return False

    def _due(self) -> str | None:
        now = asyncio.get_running_loop().time()
        return next((path for path, (_, due) in self._pending.items() if due <= now), None)

    async def _one(self, chunks: ChunkTable, path: str) -> None:
        tries = self._pending.pop(path)[0] + 1
        self._at_work = path
        try:
            if await self._tried(self._index(chunks, path), path) or path in self._pending:
                return
            if tries < _MAX_TRIES:
                self._pending[path] = tries, asyncio.get_running_loop().time() + self.retry.delay(tries, random.random)
            else:
                logger.error("a file is not indexed", extra={"agent": self.name, "path": path})
        finally:
            self._at_work = None

    async def _tried(self, doing: Any, what: str) -> bool:
        try:
            with guarding():
                await doing
        except Exception:
            # Whatever a subclass or an embedder raises: other files are indexed all the same.
            logger.warning("indexing failed", exc_info=True, extra={"agent": self.name, "path": what})
            return False
        return True

    async def _index(self, chunks: ChunkTable, path: str) -> None:
        entry = await self.room.storage.stat(path=path)
        if entry is None or entry.is_folder:
            await chunks.remove(path)
            return
        try:
            text = await self.read_file(path=path)
        except NotFoundError:
            await chunks.remove(path)
            return
        except LimitExceededError as error:
            logger.warning(
                "a file is too large to index", extra={"agent": self.name, "path": path, "reason": str(error)}
            )
            text = None
        texts = [path.rpartition("/")[2]]
        if text:
            found = await self.chunker.chunk(text=text, max_length=self.embedder.max_length)
            texts += [chunk.text for chunk in found if chunk.text.strip()][:_MAX_CHUNKS]
        await chunks.put(path, texts, state=_state(entry))

    async def _compared(self, chunks: ChunkTable) -> None:
        """Look at each file that is not in the table as it is now, and at each in the table that is not there."""
        states, folders, seen = await chunks.states(), [""], set[str]()
        while folders:
            folder = folders.pop()
            async for page in self.room.storage.pages(path=folder):
                for entry in page:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_folder:
                        folders.append(path)
                        continue
                    seen.add(path)
                    if states.get(path) != _state(entry):
                        self._look_at(path)
        for path in states.keys() - seen:
            self._look_at(path)


def _state(entry: Any) -> str:
    return "" if entry.updated_at is None else str(entry.updated_at.isoformat())
