"""An agent whose model uses a server of MCP, which the provider of the model calls."""

import asyncio

from meshagent.agents import AgentCallContext, TaskRunner
from meshagent.api.schema_util import prompt_schema
from meshagent.api.services import ServiceHost
from meshagent.openai import OpenAIResponsesAdapter
from meshagent.openai.tools.responses_adapter import MCPConfig, MCPServer, MCPTool
from meshagent.tools import Toolkit

service = ServiceHost()
wiki = MCPServer(
    server_label="wiki",
    server_url="https://mcp.example.com/mcp",
    headers={"Authorization": "Bearer example"},
    allowed_tools=["ask"],
    require_approval="never",
)


@service.path(path="/wiki", identity="wiki-runner")
class WikiRunner(TaskRunner):
    def __init__(self):
        super().__init__(
            name="wiki-runner",
            input_schema=prompt_schema(description="a question"),
            output_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["answer"],
                "properties": {"answer": {"type": "string"}},
            },
        )

    async def ask(self, *, context: AgentCallContext, arguments: dict):
        adapter = OpenAIResponsesAdapter()
        chat = adapter.create_chat_context()
        chat.append_user_message(arguments["prompt"])
        wiki_tools = Toolkit(name="mcp", tools=[MCPTool(config=MCPConfig(name="mcp", servers=[wiki]))])
        answer = await adapter.next(context=chat, room=context.room, toolkits=[wiki_tools])
        return {"answer": answer}


if __name__ == "__main__":
    asyncio.run(service.run())
