"""Agents: programs that take part in a room and usually let a model decide what to do.

`base.py` has what all agents share; `worker.py` processes a queue, `task_runner.py` and `llmrunner.py` answer asks,
`listener.py` watches a document, `chat/` talks with people. Agents know models only as `LLMAdapter` (`adapter.py`); the
program that constructs an agent chooses the model. `writer/` writes into documents. `agent.py`, `thread_schema.py`,
`planning.py`, `pydantic.py`, `utils.py`, `hosting/` and `schemas/` keep MeshAgent's import paths.

May import `meshhost.tools`, `meshhost.room` and what lies below them. Knows no server, host or gateway: an agent runs the
same in any process that can reach a room.
"""

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.base import Agent, SingleRoomAgent
from meshhost.agents.chat import ChatBot, ChatThreadContext
from meshhost.agents.context import AgentCallContext, AgentChatContext
from meshhost.agents.listener import Listener, ListenerContext
from meshhost.agents.llmrunner import LLMTaskRunner
from meshhost.agents.room_tools import RoomTool
from meshhost.agents.task_runner import RunTaskTool, TaskRunner
from meshhost.agents.utils import connect_development_agent
from meshhost.agents.worker import Worker
from meshhost.agents.writer import SingleShotWriter, Writer, WriterContext
from meshhost.documents.thread_schema import thread_schema
from meshhost.elsewhere import names_elsewhere
from meshhost.room.requirements import RequiredToolkit

__all__ = [
    "Agent",
    "AgentCallContext",
    "AgentChatContext",
    "ChatBot",
    "ChatThreadContext",
    "LLMAdapter",
    "LLMTaskRunner",
    "Listener",
    "ListenerContext",
    "RequiredToolkit",
    "RoomTool",
    "RunTaskTool",
    "SingleRoomAgent",
    "SingleShotWriter",
    "TaskRunner",
    "ToolResponseAdapter",
    "Worker",
    "Writer",
    "WriterContext",
    "connect_development_agent",
    "thread_schema",
]

__getattr__ = names_elsewhere(
    __name__,
    {"RemoteAgentServer": "meshhost.hosting.single", "RemoteTaskRunnerServer": "meshhost.hosting.single"},
    {
        "run_external_channel": "use a ChatBot, a Worker or a MailBot: channels between processes are MeshAgent's own",
        "MailChannel": "use meshhost.agents.mail.MailBot",
    },
)
