"""Toolkits that a caller asks for by name and may configure: `ToolkitBuilder`, and `make_toolkits`, which makes them.

An agent offers builders (`ChatBot.get_thread_toolkit_builders`, `LLMTaskRunner.get_toolkit_builders`); a message, or the
arguments of an ask, name some in `tools`. The configuration comes from another participant, so it is parsed by the builder's
pydantic model before anything is made of it. A name that is not offered is an error for the caller alone.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from meshhost.errors import InvalidRequestError
from meshhost.tools.storage import StorageToolkit, StorageToolRoomMount
from meshhost.tools.toolkit import Toolkit

__all__ = ["StorageToolkitBuilder", "StorageToolkitConfig", "ToolkitBuilder", "ToolkitConfig", "make_toolkits"]


class ToolkitConfig(BaseModel):
    """What a caller asks for: the builder's name. Subclass it for what else may be configured."""

    name: str


class ToolkitBuilder:
    """Makes a toolkit for one message. `type` is the pydantic model of the configuration that a message may give."""

    def __init__(self, *, name: str, type: type[BaseModel]) -> None:
        self.name = name
        self.type = type

    def make(self, *, model: str, config: Any) -> Any:
        """Return the toolkit for an answer of `model`; `config` is an instance of `type`. It may be an `async def`."""
        raise NotImplementedError


class StorageToolkitConfig(ToolkitConfig):
    """Asks for the tools of the room's files."""

    name: str = "storage"


class StorageToolkitBuilder(ToolkitBuilder):
    """Lets a caller ask for the tools of the room's files, or of `mounts`: `{"name": "storage"}`."""

    def __init__(self, *, mounts: Sequence[StorageToolRoomMount] | None = None) -> None:
        super().__init__(name="storage", type=StorageToolkitConfig)
        self._mounts = mounts

    def make(self, *, model: str, config: StorageToolkitConfig) -> Toolkit:
        """Return a StorageToolkit."""
        return StorageToolkit(mounts=self._mounts)


async def make_toolkits(builders: Sequence[Any], wanted: Sequence[Mapping[str, Any]], *, model: str) -> list[Toolkit]:
    """Return a toolkit for each object in `wanted`, made by the builder of its `name`. Raises InvalidRequestError.

    A Toolkit among the `builders` is used as it is.
    """
    by_name = {builder.name: builder for builder in builders}
    toolkits = []
    for config in wanted:
        builder = by_name.get(str(config.get("name")))
        if builder is None:
            known = ", ".join(sorted(by_name)) or "none"
            raise InvalidRequestError("tools", f"there is no {config.get('name')!r} here; there are: {known}")
        toolkits.append(builder if isinstance(builder, Toolkit) else await _made(builder, config, model))
    return toolkits


async def _made(builder: ToolkitBuilder, config: Mapping[str, Any], model: str) -> Toolkit:
    try:
        parsed = builder.type.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, ("tools", builder.name, *first["loc"])))
        raise InvalidRequestError(where, first["msg"]) from None
    made = builder.make(model=model, config=parsed)
    toolkit: Toolkit = await made if inspect.isawaitable(made) else made
    return toolkit
