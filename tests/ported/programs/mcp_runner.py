"""An agent whose model uses a server of MCP, which the provider of the model calls."""

import asyncio

from meshagent.agents.llmrunner import LLMTaskRunner
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
class WikiRunner(LLMTaskRunner):
    def __init__(self):
        super().__init__(
            name="wiki-runner",
            llm_adapter=OpenAIResponsesAdapter(),
            toolkits=[Toolkit(name="mcp", tools=[MCPTool(config=MCPConfig(name="mcp", servers=[wiki]))])],
            output_schema={
                "type": "object",
                "additionalProperties": False,
                "required": ["answer"],
                "properties": {"answer": {"type": "string"}},
            },
        )


if __name__ == "__main__":
    asyncio.run(service.run())
