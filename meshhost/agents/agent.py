"""The names that MeshAgent programs import from `meshagent.agents.agent`; the code is in the modules named below.

Re-exports only, and nothing of ours imports this module: it stands above the modules it names, so that they need no import
of each other.
"""

from meshhost.agents.base import Agent, SingleRoomAgent
from meshhost.agents.context import AgentCallContext
from meshhost.agents.room_tools import RoomTool, toolkit_of_room
from meshhost.agents.task_runner import RunTaskTool, TaskRunner, make_run_task_tool
from meshhost.errors import RoomError as AgentException
from meshhost.room.requirements import RequiredToolkit
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = [
    "Agent",
    "AgentCallContext",
    "AgentException",
    "RequiredToolkit",
    "RoomTool",
    "RunTaskTool",
    "SingleRoomAgent",
    "TaskRunner",
    "ToolContext",
    "Toolkit",
    "make_run_task_tool",
    "toolkit_of_room",
]
