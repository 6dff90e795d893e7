"""The built-in agents and toolkits: what a room server offers in every room when somebody asks for it.

Each is made for one room and under the name that it was asked by, and ends by itself when it had nothing to do for a while.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from meshhost.agents.context import AgentCallContext
from meshhost.agents.planning import DynamicPlanningResponder, PlanningResponder
from meshhost.agents.task_runner import TaskRunner
from meshhost.agents.writer import SingleShotWriter
from meshhost.markitdown.tools import MarkItDownToolkit
from meshhost.openai.tools.responses_adapter import OpenAIResponsesAdapter
from meshhost.protocol.messages import Response
from meshhost.room.call import CallContext
from meshhost.tools.remote import RemoteToolkit
from meshhost.tools.storage import StorageToolkit
from meshhost.tools.tool import Tool, ToolContext

__all__ = ["paths"]

_WRITER_RULES = (
    "You write documents. Write the whole content that the prompt asks for, and nothing about yourself.",
    "Use headings where the text has parts, and Markdown inside running text.",
)


class _Idle:
    """Ends its agent when nothing was asked of it for `idle_seconds`."""

    idle_seconds = 300.0

    def __init__(self) -> None:
        self._in_work = 0
        self._last = asyncio.get_running_loop().time()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The agent has work inside the block."""
        self._in_work += 1
        try:
            yield
        finally:
            self._in_work -= 1
            self._last = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Return when the agent was idle for long enough."""
        while True:
            idle = 0.0 if self._in_work else asyncio.get_running_loop().time() - self._last
            if idle >= self.idle_seconds:
                return
            await asyncio.sleep(self.idle_seconds - idle)


class _Resting(TaskRunner):
    """A task runner that ends when nothing was asked of it for a while."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._rest = _Idle()

    async def ask(self, *, context: AgentCallContext, arguments: Any) -> Any:
        with self._rest.busy():
            return await super().ask(context=context, arguments=arguments)

    async def wait_ended(self) -> None:
        await self._rest.wait()


class _Planner(_Resting, PlanningResponder):
    def __init__(self, call: CallContext) -> None:
        super().__init__(
            name=call.identity,
            title="Planner",
            description="does a task with the tools that it is given, and says what came of it",
            llm_adapter=OpenAIResponsesAdapter(),
            output_schema={
                "type": "object",
                "required": ["result"],
                "additionalProperties": False,
                "properties": {"result": {"type": "string"}},
            },
        )


class _SchemaPlanner(_Resting, DynamicPlanningResponder):
    def __init__(self, call: CallContext) -> None:
        super().__init__(
            name=call.identity,
            title="Schema planner",
            description="does a task with the tools that it is given, and answers in the form of a JSON schema",
            llm_adapter=OpenAIResponsesAdapter(),
        )


class _DocumentWriter(_Resting, SingleShotWriter):
    def __init__(self, call: CallContext) -> None:
        super().__init__(
            name=call.identity,
            title="Document writer",
            description="writes into a document what a prompt asks for",
            llm_adapter=OpenAIResponsesAdapter(),
            rules=_WRITER_RULES,
            supports_tools=True,
        )


class _IdleToolkit(RemoteToolkit):
    """Offers the tools of another toolkit under the name that it was asked by."""

    def __init__(self, call: CallContext, toolkit: Any) -> None:
        super().__init__(
            name=call.identity,
            title=toolkit.title,
            description=toolkit.description,
            tools=[tool for tool in toolkit.tools if isinstance(tool, Tool)],
            rules=toolkit.rules,
        )
        self._rest = _Idle()

    async def execute(
        self, *, context: ToolContext, name: str, arguments: dict[str, Any], attachment: bytes | None = None
    ) -> Response:
        with self._rest.busy():
            return await super().execute(context=context, name=name, arguments=arguments, attachment=attachment)

    async def wait_ended(self) -> None:
        await self._rest.wait()


def _markitdown(call: CallContext) -> _IdleToolkit:
    return _IdleToolkit(call, MarkItDownToolkit())


def _storage(call: CallContext) -> _IdleToolkit:
    return _IdleToolkit(call, StorageToolkit())


def paths(*, idle_seconds: float) -> dict[str, Callable[..., Any]]:
    """Return what makes an agent at each path. An agent ends after `idle_seconds` without work."""
    _Idle.idle_seconds = idle_seconds
    return {
        "/planner": _Planner,
        "/schema_planner": _SchemaPlanner,
        "/document-writer": _DocumentWriter,
        "/markitdown": _markitdown,
        "/storage": _storage,
    }
