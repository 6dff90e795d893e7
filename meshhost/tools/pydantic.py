"""`PydanticTool`: a tool whose arguments are a pydantic model. MeshAgent programs import it from `meshagent.tools.pydantic`.

New programs have it shorter with `@tool` on a typed function (`function.py`).
"""

from abc import abstractmethod
from typing import Any

from pydantic import BaseModel, ValidationError

from meshhost.errors import InvalidRequestError
from meshhost.guard import call
from meshhost.tools.tool import Tool, ToolContext

__all__ = ["BaseModel", "PydanticTool"]


class PydanticTool(Tool):
    """Override `execute_model`, which gets the arguments as an instance of `input_model`."""

    def __init__(
        self, name: str, input_model: type[BaseModel], title: str | None = None, description: str | None = None
    ) -> None:
        self.input_model = input_model
        super().__init__(name=name, title=title, description=description, input_schema=input_model.model_json_schema())

    async def execute(self, *, context: ToolContext, **arguments: Any) -> Any:
        """Check the arguments and hand them over. Raises InvalidRequestError that names the wrong field."""
        try:
            parsed = self.input_model.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise InvalidRequestError(".".join(map(str, first["loc"])), first["msg"]) from None
        return await call(self.execute_model, context=context, arguments=parsed)

    @abstractmethod
    async def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        """Called as `execute_model(context=context, arguments=model)`. Returns a Response, a text, a dict or None."""
