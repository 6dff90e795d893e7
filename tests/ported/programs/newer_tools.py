"""Tools as programs for MeshAgent from 0.20 on write them."""

import asyncio

from meshagent.api.messaging import JsonContent, TextContent
from meshagent.api.services import ServiceHost
from meshagent.tools import FunctionTool, LocalRoomTool, RemoteToolkit, ToolContext

service = ServiceHost()
NOTHING = {"type": "object", "additionalProperties": False, "required": [], "properties": {}}


class Greet(FunctionTool):
    def __init__(self):
        super().__init__(name="greet", description="greets", input_schema=NOTHING)

    async def execute(self, context: ToolContext):
        return TextContent(text="hello")


class WhereAmI(LocalRoomTool):
    def __init__(self, *, room):
        super().__init__(room=room, name="where_am_i", description="names the room", input_schema=NOTHING)

    async def execute(self, context: ToolContext):
        return JsonContent(json={"room": self.room.room_name})


@service.path(path="/newer", identity="newer-tools")
class NewerTools(RemoteToolkit):
    def __init__(self):
        super().__init__(name="newer", tools=[Greet()])

    async def start(self, *, room):
        self.tools.append(WhereAmI(room=room))
        await super().start(room=room)


if __name__ == "__main__":
    asyncio.run(service.run())
