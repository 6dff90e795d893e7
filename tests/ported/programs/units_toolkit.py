"""A toolkit for everybody in the room, served by a host."""

import asyncio

from meshagent.api.messaging import JsonResponse, TextResponse
from meshagent.api.services import ServiceHost
from meshagent.otel import otel_config
from meshagent.tools import Tool, ToolContext
from meshagent.tools.hosting import RemoteToolkit

otel_config(service_name="units")

service = ServiceHost()


def one_number(name: str) -> dict:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name],
        "properties": {name: {"type": "number"}},
    }


class ToMiles(Tool):
    def __init__(self):
        super().__init__(
            name="to_miles", title="To miles", description="kilometres as miles", input_schema=one_number("kilometres")
        )

    async def execute(self, context: ToolContext, kilometres: float):
        return JsonResponse(json={"miles": round(kilometres / 1.609344, 3)})


class ToFahrenheit(Tool):
    def __init__(self):
        super().__init__(
            name="to_fahrenheit",
            title="To Fahrenheit",
            description="degrees Celsius as degrees Fahrenheit",
            input_schema=one_number("celsius"),
        )

    async def execute(self, context: ToolContext, celsius: float):
        return TextResponse(text=f"{celsius * 9 / 5 + 32:g} °F")


@service.path(path="/units", identity="units")
class Units(RemoteToolkit):
    def __init__(self):
        super().__init__(
            name="units",
            title="Units",
            description="turns one unit into another",
            tools=[ToMiles(), ToFahrenheit()],
        )


if __name__ == "__main__":
    asyncio.run(service.run())
