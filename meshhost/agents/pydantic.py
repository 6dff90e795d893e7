"""`PydanticAgent` and `PydanticWriter`: agents whose arguments and answers are pydantic models.

The names of `meshagent.agents.pydantic`. Every TaskRunner takes models as its schemas; these are the classes that programs
subclass when they override `ask_model` or `write_model`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from meshhost.agents.context import AgentCallContext
from meshhost.agents.task_runner import TaskRunner
from meshhost.agents.writer import Writer, WriterContext
from meshhost.guard import call
from meshhost.room.requirements import Requirement

__all__ = ["BaseModel", "PydanticAgent", "PydanticWriter", "WriterContext"]


class PydanticAgent(TaskRunner):
    """Override `ask_model`, which gets an instance of `input_model` and returns one of `output_model`."""

    def __init__(
        self,
        *,
        name: str | None = None,
        input_model: type[BaseModel],
        output_model: type[BaseModel],
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        supports_tools: bool | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.input_model = input_model
        self.output_model = output_model
        super().__init__(
            name=name,
            title=title,
            description=description,
            requires=requires,
            supports_tools=supports_tools,
            input_schema=input_model,
            output_schema=output_model,
            labels=labels,
        )

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        """Hand the arguments to `ask_model`."""
        return await call(self.ask_model, context=context, arguments=arguments)

    @abstractmethod
    async def ask_model(self, context: AgentCallContext, arguments: Any) -> Any:
        """Do the task: an instance of `input_model` in, one of `output_model` out."""


class PydanticWriter(Writer):
    """Override `write_model`. The `input_model` has a field `path`: the document that is open in the context."""

    def __init__(
        self,
        name: str,
        input_model: type[BaseModel],
        output_model: type[BaseModel],
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
    ) -> None:
        self.input_model = input_model
        self.output_model = output_model
        super().__init__(
            name=name,
            input_schema=input_model,
            output_schema=output_model,
            title=title,
            description=description,
            requires=requires,
        )

    async def write(self, writer_context: WriterContext, arguments: Any) -> Any:
        """Hand the arguments to `write_model`."""
        return await call(self.write_model, writer_context=writer_context, arguments=arguments)

    @abstractmethod
    async def write_model(self, writer_context: WriterContext, arguments: Any) -> Any:
        """Write into the document: an instance of `input_model` in, one of `output_model` out."""
