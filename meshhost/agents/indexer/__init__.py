"""Indexes of texts in tables of a room: of files (`StorageIndexer`) or a web site (`SiteIndexer`), and tools to search them.

The names are those of MeshAgent's SDK. `chunks` cuts texts into pieces, `embedders` turn pieces into vectors, `table` keeps
both in a table of the room, `storage` and `site` are the agents, `rag` has the tools that models search with.
"""

from meshhost.agents.indexer.chunks import ChonkieChunker, Chunk, Chunker, TextChunker
from meshhost.agents.indexer.embedders import (
    Embedder,
    HashingEmbedder,
    OpenAIEmbedder,
    open_ai_embedding_3_large,
    open_ai_embedding_3_small,
    open_ai_embedding_ada_2,
)
from meshhost.agents.indexer.rag import RagTool, RagToolkit
from meshhost.agents.indexer.site import SiteIndexer
from meshhost.agents.indexer.storage import FileIndexEvent, StorageIndexer

__all__ = [
    "ChonkieChunker",
    "Chunk",
    "Chunker",
    "Embedder",
    "FileIndexEvent",
    "HashingEmbedder",
    "OpenAIEmbedder",
    "RagTool",
    "RagToolkit",
    "SiteIndexer",
    "StorageIndexer",
    "TextChunker",
    "open_ai_embedding_3_large",
    "open_ai_embedding_3_small",
    "open_ai_embedding_ada_2",
]
