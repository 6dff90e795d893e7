"""A table of the room with the chunks of sources (files, pages), their texts and vectors.

Each row is a chunk: which source it is of, by `url`, the how many-th it is, its text, the hash of that, its vector, and a
mark that says which state of the source it is from. `put` replaces the chunks of a source: it writes the new ones, then
removes what is left over of the old ones, so that a search in between finds the source, and doing it again after a failure is
right. A text that is in the table already is not embedded again.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meshhost.agents.indexer.embedders import Embedder
from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.room.services.tables.data_types import FloatDataType, IntDataType, TextDataType, VectorDataType

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["ChunkTable"]

# Hashes in one filter, and rows in one request: both are bounded at the server.
_HASHES = 100
_ROWS_AT_ONCE = 200
_PAGE = 5000


class ChunkTable:
    """The chunks in one table of a room."""

    def __init__(self, room: "RoomClient", table: str, embedder: Embedder) -> None:
        self._database = room.database
        self._table = table
        self._embedder = embedder
        embedder.use(room)

    async def ensure(self) -> None:
        """Create the table unless it is there."""
        await self._database.create_table_with_schema(
            name=self._table,
            schema={
                "id": TextDataType(),
                "url": TextDataType(),
                "n": IntDataType(),
                "text": TextDataType(),
                "sha": TextDataType(),
                "state": TextDataType(),
                "embedding": VectorDataType(size=self._embedder.size, element_type=FloatDataType()),
            },
            mode="create_if_not_exists",
        )

    async def put(self, url: str, texts: Sequence[str], *, state: str) -> None:
        """Make these texts the chunks of a source. Raises RoomError, LLMError; to do it again is right then."""
        hashes = [hashlib.sha256(text.encode(errors="replace")).hexdigest() for text in texts]
        vectors = await self._vectors(dict(zip(hashes, texts, strict=True)))
        rows = [
            {
                "id": f"{url}#{number}",
                "url": url,
                "n": number,
                "text": text,
                "sha": sha,
                "state": state,
                "embedding": vectors[sha],
            }
            for number, (sha, text) in enumerate(zip(hashes, texts, strict=True))
        ]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            await self._database.merge(table=self._table, on="id", records=rows[start : start + _ROWS_AT_ONCE])
        await self._database.delete(table=self._table, where=f"url = {json.dumps(url)} AND n >= {len(rows)}")

    async def remove(self, url: str) -> None:
        """Remove the chunks of a source."""
        await self._database.delete(table=self._table, where=f"url = {json.dumps(url)}")

    async def remove_others(self, state: str) -> None:
        """Remove the chunks of all sources whose state is another one."""
        await self._database.delete(table=self._table, where=f"state != {json.dumps(state)}")

    async def states(self) -> Mapping[str, str]:
        """The state of each source that is in the table, by its url."""
        found: dict[str, str] = {}
        offset = 0
        while True:
            rows = await self._database.search(
                table=self._table, where="n = 0", select=["url", "state"], limit=_PAGE, offset=offset
            )
            found |= {row["url"]: row["state"] for row in rows}
            if len(rows) < _PAGE:
                return found
            offset += len(rows)

    async def refresh(self) -> None:
        """Make the indexes that the table has too few rows for yet, or bring them up to date."""
        columns = {column for index in await self._database.list_indexes(table=self._table) for column in index.columns}
        if "text" not in columns:
            await self._database.create_full_text_search_index(table=self._table, column="text")
        if "id" not in columns:
            await self._database.create_scalar_index(table=self._table, column="id")
        if "embedding" not in columns:
            with contextlib.suppress(InvalidRequestError):  # too few rows, which are searched quickly without
                await self._database.create_vector_index(table=self._table, column="embedding")
        await self._database.optimize(table=self._table)

    async def _vectors(self, texts: Mapping[str, str]) -> dict[str, list[float]]:
        """The vectors of texts, by hash: those that are in the table, and new ones."""
        found: dict[str, list[float]] = {}
        hashes = list(texts)
        for start in range(0, len(hashes), _HASHES):
            wanted = ", ".join(f"'{sha}'" for sha in hashes[start : start + _HASHES])
            rows = await self._known(f"sha IN ({wanted})")
            found |= {row["sha"]: row["embedding"] for row in rows if row["embedding"] is not None}
        new = [sha for sha in hashes if sha not in found]
        if new:
            made = await self._embedder.embed_many([texts[sha] for sha in new])
            found |= dict(zip(new, made, strict=True))
        return found

    async def _known(self, where: str) -> list[dict[str, Any]]:
        try:
            return await self._database.search(table=self._table, where=where, select=["sha", "embedding"], limit=1000)
        except NotFoundError:
            return []
