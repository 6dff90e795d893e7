"""Toolkits that a chat message asks for by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from meshhost.errors import InvalidRequestError
from meshhost.tools.toolkit import Toolkit

__all__ = ["ToolkitBuilder", "make_toolkits"]


class ToolkitBuilder:
    """Makes a toolkit for one message, as the message says; `type` is the pydantic model of what it may say."""

    def __init__(self, *, name: str, type: type[BaseModel]) -> None:
        self.name = name
        self.type = type

    async def make(self, *, model: str, config: Any) -> Toolkit:
        """The toolkit; `config` is an instance of `type`."""
        raise NotImplementedError


async def make_toolkits(
    builders: Sequence[ToolkitBuilder], wanted: Sequence[Mapping[str, Any]], *, model: str
) -> list[Toolkit]:
    """A toolkit for each object, by the builder that its `name` names. Raises InvalidRequestError."""
    by_name = {builder.name: builder for builder in builders}
    toolkits = []
    for config in wanted:
        builder = by_name.get(str(config.get("name")))
        if builder is None:
            known = ", ".join(sorted(by_name)) or "none"
            raise InvalidRequestError("tools", f"there is no {config.get('name')!r} here; there are: {known}")
        try:
            parsed = builder.type.model_validate(dict(config))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, ("tools", builder.name, *first["loc"])))
            raise InvalidRequestError(where, first["msg"]) from None
        toolkits.append(await builder.make(model=model, config=parsed))
    return toolkits
