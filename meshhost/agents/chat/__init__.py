"""`ChatBot`: an agent that people talk with, in threads that are documents of the room (room-protocol §19).

`bot.py` is the agent and its hooks, `threads.py` the table of open threads, `thread.py` one of them, `owner.py` what it
needs of the bot. `policy.py`, `log.py`, `history.py`, `attachments.py` and `tools.py` are parts without tasks: what a
message asks for, the document as a list of messages, the conversation with the model. `answer.py` writes a growing answer,
`claims.py` matches messages with elements of the document, `schema.py` stores the document type in the room.
"""

from meshhost.agents.chat.bot import ChatBot
from meshhost.agents.chat.context import ChatThreadContext
from meshhost.elsewhere import names_elsewhere

__all__ = ["ChatBot", "ChatThreadContext"]

_NO_SHELL = "meshhost runs no shells for models: give the agent a tool that calls your own service"
__getattr__ = names_elsewhere(
    __name__,
    {
        "ChatBotThreadOpenAIImageGenerationTool": "meshhost.openai.tools.thread_images",
        "ChatBotThreadOpenAIImageGenerationToolkitBuilder": "meshhost.openai.tools.thread_images",
    },
    {"ChatBotThreadLocalShellTool": _NO_SHELL, "ChatBotThreadLocalShellToolkitBuilder": _NO_SHELL},
)
