"""Invokes a toolkit that the test offers, and asks an agent."""

import asyncio
from typing import Any

from lines import error_of, room_client, say
from meshagent.tools import JsonRequest


async def main() -> None:
    async with room_client() as room:
        agents = room.agents
        toolkits = await agents.list_toolkits()
        tools = {tool.name: tool.input_schema for toolkit in toolkits for tool in toolkit.tools}
        say(id=room.local_participant.id, toolkits=[[each.name, each.title] for each in toolkits], tools=tools)

        async def invoke(tool: str, **arguments: Any) -> Any:
            return await agents.invoke_tool(
                toolkit="ours", tool=tool, arguments=arguments, caller_context={"why": "test"}
            )

        answer = await invoke("echo", text="é")
        say(answer=answer.json)
        say(empty=type(await invoke("nothing")).__name__)
        file = await invoke("file", mib=6)
        say(file=[file.name, file.mime_type, len(file.data), file.data == bytes(range(256)) * 4096 * 6])
        # A body that the SDK could not read if it were passed on as it is.
        say(raw=(await invoke("raw")).json)
        say(error=await error_of(invoke("fail")))
        say(no_tool=await error_of(invoke("missing")))
        say(no_toolkit=await error_of(agents.invoke_tool(toolkit="theirs", tool="x", arguments={})))
        say(no_agent=await error_of(agents.ask(agent="nobody", arguments={})))
        say(no_call=await error_of(agents.make_call(name="x", url="http://localhost:8080/toolkits/x", arguments={})))
        request = JsonRequest(json={"n": 1})
        say(request=(await agents.invoke_request_tool(toolkit="ours", tool="echo", request=request)).json)


asyncio.run(main())
