"""A chat thread as the hooks of a ChatBot see it.

`thread.py` makes one when it opens a thread; the bot passes it to the hooks of a program until the thread is closed.
MeshAgent programs import `ChatThreadContext` from `agents.chat`, so its attributes keep their names.
"""

from meshhost.agents.context import AgentChatContext
from meshhost.documents.document import MeshDocument
from meshhost.room.participants import RemoteParticipant

__all__ = ["ChatThreadContext"]


class ChatThreadContext:
    """A thread: the conversation with the model, the document, its path, and those members who are in the room now."""

    def __init__(
        self,
        *,
        chat: AgentChatContext,
        thread: MeshDocument,
        path: str,
        participants: list[RemoteParticipant] | None = None,
    ) -> None:
        self.chat = chat
        self.thread = thread
        self.path = path
        self.participants = list(participants or ())

    def __repr__(self) -> str:
        return f"<ChatThreadContext {self.path!r} {self.chat!r}>"
