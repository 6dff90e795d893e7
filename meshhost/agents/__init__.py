"""Agents: programs that take part in a room and let a model decide what to do.

`agent.py` has what all share, `worker.py` the queue worker, `task_runner.py` and `llmrunner.py` agents that are asked,
`chat.py` one that people talk with. They know models only as `LLMAdapter` (adapter.py); which one is theirs is said by whoever
constructs them.
"""

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.agent import Agent, RoomTool, SingleRoomAgent
from meshhost.agents.chat.bot import ChatBot, ChatThreadContext
from meshhost.agents.context import AgentCallContext, AgentChatContext
from meshhost.agents.listener import Listener, ListenerContext
from meshhost.agents.llmrunner import LLMTaskRunner
from meshhost.agents.task_runner import RunTaskTool, TaskRunner
from meshhost.agents.worker import Worker
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
    "TaskRunner",
    "ToolResponseAdapter",
    "Worker",
]
