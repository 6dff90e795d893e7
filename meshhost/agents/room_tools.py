"""Toolkits of the room as local toolkits: each call of a tool becomes a request to its provider.

A model is given `Toolkit` objects and does not care where a tool runs. `toolkit_of_room` turns the description that the
room server keeps of a toolkit (`room.agents.list_toolkits`, or one that was handed along with an ask) into a Toolkit of
`RoomTool`s. Used by `base.py` for required toolkits and by `task_runner.py` for those of an ask.
"""

from collections.abc import Sequence
from typing import Any

from meshhost.errors import NotFoundError
from meshhost.protocol.messages import Response
from meshhost.room.requirements import RequiredToolkit
from meshhost.room.services.agents import ToolDescription, ToolkitDescription
from meshhost.tools.tool import Tool, ToolContext
from meshhost.tools.toolkit import Toolkit

__all__ = ["RoomTool", "required_toolkit", "toolkit_of_room"]


class RoomTool(Tool):
    """A tool that another participant of the room provides.

    `participant_id` limits the search for the toolkit to what that participant sees; `on_behalf_of_id` overrides the
    participant that the call's context names.
    """

    def __init__(
        self,
        *,
        toolkit_name: str,
        name: str,
        input_schema: dict[str, Any],
        title: str | None = None,
        description: str | None = None,
        rules: list[str] | None = None,
        thumbnail_url: str | None = None,
        participant_id: str | None = None,
        on_behalf_of_id: str | None = None,
        defs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            name=name,
            input_schema=input_schema,
            title=title,
            description=description,
            rules=rules,
            thumbnail_url=thumbnail_url,
            defs=defs,
        )
        self.toolkit_name = toolkit_name
        self._participant_id = participant_id
        self._on_behalf_of_id = on_behalf_of_id

    async def execute(self, context: ToolContext, **kwargs: Any) -> Response:
        """Invoke the tool in the room. Raises RoomError with the provider's answer."""
        on_behalf_of = None if context.on_behalf_of is None else context.on_behalf_of.id
        return await context.room.agents.invoke_tool(
            toolkit=self.toolkit_name,
            tool=self.name,
            arguments=kwargs,
            participant_id=self._participant_id,
            on_behalf_of_id=self._on_behalf_of_id or on_behalf_of,
            caller_context=context.caller_context,
        )


def toolkit_of_room(
    description: ToolkitDescription, tools: Sequence[ToolDescription], participant_id: str | None
) -> Toolkit:
    """Return a toolkit of these `tools`, invoked in the room as the participant of that id sees them."""
    return Toolkit(
        name=description.name,
        title=description.title,
        description=description.description,
        thumbnail_url=description.thumbnail_url,
        tools=[
            RoomTool(
                toolkit_name=description.name,
                name=tool.name,
                title=tool.title,
                description=tool.description,
                input_schema=tool.input_schema or {"type": "object", "properties": {}},
                defs=tool.defs,
                thumbnail_url=tool.thumbnail_url,
                participant_id=participant_id,
            )
            for tool in tools
        ],
    )


def required_toolkit(description: ToolkitDescription, required: RequiredToolkit, participant_id: str) -> Toolkit:
    """Return the toolkit with those tools that `required` names (None: all). Raises NotFoundError for a missing one."""
    if required.tools is None:
        return toolkit_of_room(description, description.tools, participant_id)
    tools = []
    for name in required.tools:
        tool = description.get_tool(name)
        if tool is None:
            raise NotFoundError(f"toolkit {description.name!r} has no tool {name!r}")
        tools.append(tool)
    return toolkit_of_room(description, tools, participant_id)
