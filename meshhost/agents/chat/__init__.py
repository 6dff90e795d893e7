"""`ChatBot`: an agent that people talk with, in threads that are documents of the room (room-protocol §19).

`bot.py` is the agent and its hooks, `threads.py` the table of open threads, `thread.py` one of them, `owner.py` what it
needs of the bot. `policy.py`, `log.py`, `history.py`, `attachments.py` and `tools.py` are parts without tasks: what a
message asks for, the document as a list of messages, the conversation with the model. `answer.py` writes a growing answer,
`claims.py` matches messages with elements of the document, `schema.py` stores the document type in the room.
"""

from meshhost.agents.chat.bot import ChatBot
from meshhost.agents.chat.context import ChatThreadContext

__all__ = ["ChatBot", "ChatThreadContext"]
