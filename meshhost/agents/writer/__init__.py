"""Agents for documents: `writing.py` has those that are asked to write one, `schema_registry.py` one that stores their schemas.

`Writer` and `WriterContext` are MeshAgent's names at this path.
"""

from meshhost.agents.writer.writing import SingleShotWriter, Writer, WriterContext

__all__ = ["SingleShotWriter", "Writer", "WriterContext"]
