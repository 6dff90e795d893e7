"""The names of `meshagent.agents.thread_schema`. Re-exports only.

The schema itself is data of the documents layer (`meshhost.documents.thread_schema`), since the room server needs it, too;
storing it in a room is the chat bot's work (`meshhost.agents.chat.schema`).
"""

from meshhost.agents.chat.schema import SCHEMA_NAME, SCHEMA_PATH, ensure_thread_schema
from meshhost.documents.thread_schema import thread_schema

__all__ = ["SCHEMA_NAME", "SCHEMA_PATH", "ensure_thread_schema", "thread_schema"]
