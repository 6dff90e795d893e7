"""The names that MeshAgent programs import from `meshagent.agents.agent`; the code is in the modules named below.

Re-exports only, and nothing of ours imports this module: it stands above the modules it names, so that they need no import
of each other.
"""

from meshhost.agents.base import Agent, SingleRoomAgent
from meshhost.agents.context import AgentCallContext
from meshhost.agents.room_tools import RoomTool, toolkit_of_room
from meshhost.agents.task_runner import RunTaskTool, TaskRunner

__all__ = [
    "Agent",
    "AgentCallContext",
    "RoomTool",
    "RunTaskTool",
    "SingleRoomAgent",
    "TaskRunner",
    "toolkit_of_room",
]
