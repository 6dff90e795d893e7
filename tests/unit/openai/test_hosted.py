"""Tools that the provider runs: what they ask for, and who hears of what the provider did."""

import base64

import pytest

from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError
from meshhost.openai.tools.responses_adapter import (
    FileSearchTool,
    ImageGenerationConfig,
    ImageGenerationTool,
    ImageGenerationToolkitBuilder,
    MCPConfig,
    MCPServer,
    MCPTool,
    MCPToolkitBuilder,
    WebSearchTool,
    WebSearchToolkitBuilder,
)
from meshhost.tools.builders import make_toolkits
from meshhost.tools.toolkit import Toolkit

WIKI = MCPServer(server_label="wiki", server_url="https://wiki.example.com/mcp")


def test_a_server_is_asked_for_with_what_is_given():
    server = MCPServer(
        server_label="wiki",
        openai_connector_id="connector_x",
        authorization="token",
        always_require_approval=["delete"],
        never_require_approval=["read"],
    )
    assert MCPTool(servers=[server]).get_open_ai_tool_definitions() == [
        {
            "type": "mcp",
            "server_label": "wiki",
            "connector_id": "connector_x",
            "authorization": "token",
            "require_approval": {"always": {"tool_names": ["delete"]}, "never": {"tool_names": ["read"]}},
        }
    ]
    assert MCPTool(config=MCPConfig(servers=[WIKI])).get_open_ai_tool_definitions() == [
        {"type": "mcp", "server_label": "wiki", "server_url": "https://wiki.example.com/mcp"}
    ]
    with pytest.raises(InvalidRequestError, match="at least one"):
        MCPTool()


def test_pictures_and_files_are_asked_for_with_what_is_given():
    config = ImageGenerationConfig(output_format="png", size="1024x1024")
    assert ImageGenerationTool(config=config).get_open_ai_tool_definitions() == [
        {"type": "image_generation", "output_format": "png", "size": "1024x1024"}
    ]
    assert FileSearchTool(vector_store_ids=["v"], max_num_results=3).get_open_ai_tool_definitions() == [
        {"type": "file_search", "vector_store_ids": ["v"], "max_num_results": 3}
    ]


async def test_a_message_asks_for_them_by_name():
    builders = [WebSearchToolkitBuilder(), ImageGenerationToolkitBuilder(), MCPToolkitBuilder()]
    wanted = [
        {"name": "web_search"},
        {"name": "image_generation", "quality": "low"},
        {"name": "mcp", "servers": [WIKI.model_dump()]},
    ]
    made = await make_toolkits(builders, wanted, model="m")
    definitions = [tool.get_open_ai_tool_definitions()[0]["type"] for kit in made for tool in kit.tools]
    assert definitions == ["web_search", "image_generation", "mcp"]
    with pytest.raises(InvalidRequestError, match=r"tools\.image_generation\.quality"):
        await make_toolkits(builders, [{"name": "image_generation", "quality": "best"}], model="m")


class Watched(MCPTool):
    def __init__(self):
        super().__init__(servers=[WIKI])
        self.seen = []

    async def on_mcp_list_tools(self, context, *, server_label, tools, error, **extra):
        self.seen.append((server_label, [tool.name for tool in tools], error))

    async def on_mcp_call(self, context, *, name, arguments, output, **extra):
        self.seen.append((name, arguments, output))

    async def on_mcp_approval_request(self, context, *, name, **extra):
        return name == "read"


@pytest.mark.parametrize(("name", "may"), [("read", True), ("delete", False)])
async def test_a_call_that_needs_an_approval_is_answered_and_the_model_goes_on(gateway, adapter, room, name, may):
    gateway.output(
        [
            {"type": "mcp_list_tools", "id": "l1", "server_label": "wiki", "tools": [{"name": "read"}]},
            {"type": "mcp_approval_request", "id": "a1", "name": name, "arguments": "{}", "server_label": "wiki"},
        ]
    )
    gateway.output(
        [
            {"type": "mcp_call", "id": "c1", "name": name, "arguments": "{}", "server_label": "wiki", "output": "ok"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "done", "annotations": []}],
            },
        ]
    )
    tool, context = Watched(), AgentChatContext()
    context.append_user_message("go")
    answer = await adapter().next(context=context, room=room, toolkits=[Toolkit(name="mcp", tools=[tool])])
    assert answer == "done"
    assert tool.seen == [("wiki", ["read"], None), (name, "{}", "ok")]
    assert gateway.requests[1]["input"][-1] == {
        "type": "mcp_approval_response",
        "approve": may,
        "approval_request_id": "a1",
    }


async def test_a_picture_is_handed_over_and_a_handler_that_fails_costs_nothing(gateway, adapter, room):
    class Draws(ImageGenerationTool):
        seen = b""

        async def on_image_generated(self, context, *, data, output_format, **extra):
            Draws.seen = data
            raise ValueError("cannot be shown")

    class Searches(WebSearchTool):
        statuses: list[str] = []  # noqa: RUF012

        async def on_web_search(self, context, *, status, **extra):
            self.statuses.append(status)

    gateway.output(
        [
            {"type": "web_search_call", "id": "w1", "status": "completed"},
            {"type": "image_generation_call", "id": "i1", "status": "completed", "result": "%%"},
            {
                "type": "image_generation_call",
                "id": "i2",
                "status": "completed",
                "result": base64.b64encode(b"PNG").decode(),
                "output_format": "png",
            },
            {"type": "image_generation_call", "id": "i3", "status": "failed", "result": None},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "look", "annotations": []}],
            },
        ]
    )
    context = AgentChatContext()
    context.append_user_message("draw")
    kit = Toolkit(name="k", tools=[Draws(), Searches()])
    assert await adapter().next(context=context, room=room, toolkits=[kit]) == "look"
    assert (Draws.seen, Searches.statuses) == (b"PNG", ["completed"])
