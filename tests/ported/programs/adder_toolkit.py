"""A toolkit in a room without a service host."""

import asyncio

from meshagent.tools import JsonResponse, MultiTool, Tool, ToolContext, Toolkit, connect_remote_toolkit

NUMBERS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["a", "b"],
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
}


class Add(Tool):
    def __init__(self):
        super().__init__(name="add", title="Add", description="adds two numbers", input_schema=NUMBERS)

    async def execute(self, context: ToolContext, a: float, b: float):
        return JsonResponse(json={"sum": a + b})


class Multiply(Tool):
    def __init__(self):
        super().__init__(name="multiply", description="multiplies two numbers", input_schema=NUMBERS)

    async def execute(self, context: ToolContext, a: float, b: float):
        return JsonResponse(json={"product": a * b})


def toolkit() -> Toolkit:
    both = MultiTool(name="both", tools=[Add(), Multiply()])
    return Toolkit(name="adder", title="Adder", description="works with numbers", tools=[Add(), both])


if __name__ == "__main__":
    asyncio.run(connect_remote_toolkit(room_name="room", toolkit=toolkit()))
