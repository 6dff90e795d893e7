"""`ChatBot`: an agent that people talk with, in threads that are documents of the room."""

from meshhost.agents.chat.bot import ChatBot, ChatThreadContext

__all__ = ["ChatBot", "ChatThreadContext"]
