"""Toolkits that a `chat` message asks for by name in its `tools`, such as a search limited to one site.

A bot offers builders (`ChatBot.get_thread_toolkit_builders`); a message names one and may configure it. The configuration
comes from a participant, so it is parsed by the builder's pydantic model before anything is made of it.
`ChatBot` calls `make_toolkits` for each message; a name that it does not offer is an error for the sender alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from meshhost.errors import InvalidRequestError
from meshhost.tools.toolkit import Toolkit

__all__ = ["ToolkitBuilder", "make_toolkits"]


class ToolkitBuilder:
    """Makes a toolkit for one message. `type` is the pydantic model of the configuration that a message may give."""

    def __init__(self, *, name: str, type: type[BaseModel]) -> None:
        self.name = name
        self.type = type

    async def make(self, *, model: str, config: Any) -> Toolkit:
        """Return the toolkit for an answer of `model`; `config` is an instance of `type`."""
        raise NotImplementedError


async def make_toolkits(
    builders: Sequence[ToolkitBuilder], wanted: Sequence[Mapping[str, Any]], *, model: str
) -> list[Toolkit]:
    """Return a toolkit for each object in `wanted`, made by the builder of its `name`. Raises InvalidRequestError."""
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
