"""Tools by which a model searches a table of texts that an indexer has made."""

from typing import Any

from meshhost.agents.indexer.embedders import Embedder, open_ai_embedding_3_large
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["RagTool", "RagToolkit"]

_RESULTS = 10


class RagTool(Tool):
    """Searches the table `table` by text and, with an `embedder`, by meaning: the one that the table was made with."""

    def __init__(
        self,
        *,
        table: str,
        name: str = "rag_search",
        title: str = "RAG search",
        description: str = "perform a RAG search",
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        super().__init__(
            name=name,
            input_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["query"],
                "properties": {"query": {"type": "string"}},
            },
            title=title,
            description=description,
            rules=rules,
            thumbnail_url=thumbnail_url,
        )
        self.table = table
        self._embedder = embedder

    async def execute(self, context: ToolContext, query: str) -> dict[str, Any]:
        """Return the ten best texts, each with where it is from."""
        vector = None
        if self._embedder is not None:
            self._embedder.use(context.room)
            vector = await self._embedder.embed(text=query)
        found = await context.room.database.search(
            table=self.table, text=query, vector=vector, limit=_RESULTS, select=["url", "text"]
        )
        return {"results": [f"from {row['url']}: {row['text']}" for row in found]}


class RagToolkit(Toolkit):
    """A toolkit with a `RagTool` for one table; without an `embedder` by OpenAI's large one."""

    def __init__(self, table: str, embedder: Embedder | None = None) -> None:
        tool = RagTool(table=table, embedder=open_ai_embedding_3_large() if embedder is None else embedder)
        super().__init__(name="meshhost.rag", title="RAG", description="Searches against an index", tools=[tool])
