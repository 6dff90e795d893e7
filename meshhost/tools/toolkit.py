"""Tools under one name, called with checked arguments."""

import inspect
from collections.abc import Sequence
from typing import Any

from meshhost.errors import InvalidRequestError, NotFoundError, ToolError
from meshhost.protocol.messages import Response, ensure_response
from meshhost.tools.schema import check_value, with_defs
from meshhost.tools.tool import BaseTool, Tool, ToolContext

__all__ = ["Toolkit"]


class Toolkit:
    """Tools that belong together. `rules` are for the model that is given them."""

    def __init__(
        self,
        *,
        name: str,
        tools: Sequence[BaseTool],
        rules: Sequence[str] = (),
        title: str | None = None,
        description: str | None = None,
        thumbnail_url: str | None = None,
    ) -> None:
        self.name = name
        self.tools: list[BaseTool] = list(tools)
        self.rules = list(rules)
        self.title = name if title is None else title
        self.description = "" if description is None else description
        self.thumbnail_url = thumbnail_url

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} tools={[tool.name for tool in self.tools]}>"

    def all_rules(self) -> list[str]:
        """The toolkit's rules and those of its tools."""
        return [*self.rules, *(rule for tool in self.tools for rule in tool.rules)]

    def get_tool(self, name: str) -> BaseTool:
        """The tool of that name. Raises NotFoundError."""
        for tool in self.tools:
            if tool.name == name:
                return tool
        raise NotFoundError(f"toolkit {self.name!r} has no tool {name!r}")

    async def execute(
        self, *, context: ToolContext, name: str, arguments: dict[str, Any], attachment: bytes | None = None
    ) -> Response:
        """Check the arguments, call the tool and return its answer as a response.

        Raises NotFoundError for an unknown tool, InvalidRequestError naming the field that is wrong, and whatever the tool
        raises. An attachment reaches tools that have an argument of that name.
        """
        tool = self.get_tool(name)
        if not isinstance(tool, Tool):
            raise ToolError(f"tool {name!r} cannot be called with arguments")
        check_value(arguments, with_defs(tool.input_schema, tool.defs))
        if "context" in arguments:
            raise InvalidRequestError("context", "is a reserved name")
        extra = {} if attachment is None else _attached(tool, attachment)
        return ensure_response(await tool.execute(context=context, **{**arguments, **extra}))


def _attached(tool: Tool, attachment: bytes) -> dict[str, bytes]:
    parameters = inspect.signature(tool.execute).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and "attachment" not in parameters:
        raise InvalidRequestError("attachment", f"tool {tool.name!r} takes none")
    return {"attachment": attachment}
