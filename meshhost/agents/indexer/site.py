"""`SiteIndexer`: asked with the address of a web site, it makes a table with the texts of its pages, and their vectors.

It reads the pages itself (`pages`), within bounds and by the site's robots.txt; MeshAgent's has a service for that, to which
it passes the name of a queue. Pages that were in the table and are not found any more are removed when all others are there,
so that a table can be searched while its site is indexed again, and an ask that fails leaves what was there.
"""

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from meshhost.agents.context import AgentCallContext
from meshhost.agents.indexer.chunks import ChonkieChunker, Chunker
from meshhost.agents.indexer.embedders import Embedder, open_ai_embedding_3_large
from meshhost.agents.indexer.pages import Crawl, Page
from meshhost.agents.indexer.table import ChunkTable
from meshhost.agents.task_runner import TaskRunner
from meshhost.room.requirements import Requirement

__all__ = ["SiteIndexer"]

logger = logging.getLogger(__name__)

_MAX_CHUNKS = 1000
_INPUT = {
    "type": "object",
    "required": ["url"],
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string", "description": "address of the site"},
        "table": {"type": "string", "description": "table of the room to index it in; index, if there is none"},
        "queue": {"type": "string", "description": "not used: pages are read by the indexer itself"},
        "max_pages": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "pages at most; 100 by default"},
    },
}
_OUTPUT = {
    "type": "object",
    "required": [],
    "additionalProperties": False,
    "properties": {name: {"type": "integer"} for name in ("pages", "chunks", "failed", "refused")},
}


class SiteIndexer(TaskRunner):
    """Indexes web sites: asked with `url`, and with `table` unless that is `index`. Answers how many pages and chunks.

    The title of a page is a chunk of its own. Only pages of the same origin are read, and no address of a private network.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        chunker: Chunker | None = None,
        embedder: Embedder | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        supports_tools: bool | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            title=title,
            description=description,
            requires=requires,
            supports_tools=supports_tools,
            input_schema=_INPUT,
            output_schema=_OUTPUT,
            labels=labels,
        )
        self.chunker = ChonkieChunker() if chunker is None else chunker
        self.embedder = open_ai_embedding_3_large() if embedder is None else embedder

    def new_crawl(self, url: str, max_pages: int) -> Crawl:
        """Return what reads the pages; override it for other bounds."""
        return Crawl(url, max_pages=max_pages)

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> dict[str, int]:
        """Index a site. Raises InvalidRequestError for its address, ToolError when it cannot be read, LLMError."""
        crawl = self.new_crawl(arguments["url"], arguments.get("max_pages", 100))
        chunks = ChunkTable(context.room, arguments.get("table") or "index", self.embedder)
        await chunks.ensure()
        pages = count = 0
        state = uuid.uuid4().hex  # of this crawl
        async for page in crawl.pages():
            texts = await self._texts(page)
            await chunks.put(page.url, texts, state=state)
            pages, count = pages + 1, count + len(texts)
        await chunks.remove_others(state)
        await chunks.refresh()
        return {"pages": pages, "chunks": count, "failed": crawl.failed, "refused": crawl.refused}

    async def _texts(self, page: Page) -> list[str]:
        found = await self.chunker.chunk(text=page.text, max_length=self.embedder.max_length)
        return [page.title, *(chunk.text for chunk in found if chunk.text.strip())][:_MAX_CHUNKS]
