"""Agents: programs that take part in a room and let a model decide what to do.

`agent.py` has what all share, `worker.py` the queue worker. They know models only as `LLMAdapter` (adapter.py); which one is
theirs is said by whoever constructs them.
"""

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.agent import Agent, RoomTool, SingleRoomAgent
from meshhost.agents.context import AgentChatContext
from meshhost.agents.worker import Worker
from meshhost.room.requirements import RequiredToolkit

__all__ = [
    "Agent",
    "AgentChatContext",
    "LLMAdapter",
    "RequiredToolkit",
    "RoomTool",
    "SingleRoomAgent",
    "ToolResponseAdapter",
    "Worker",
]
