"""A model that answers what a test tells it to answer, without a provider.

`ScriptedLLM` is an `LLMAdapter`: give it to an agent in the place of a real one. Each call of `next` takes one step of the
script and is recorded with all that it was given.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.errors import LLMError
from meshhost.tools.schema import Schema
from meshhost.tools.toolkit import Toolkit
from meshhost.usage import report_tokens

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["ScriptedCall", "ScriptedLLM", "Wait", "wait_until"]


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """The arguments of one call of `next`; `context` is a copy from before the answer."""

    context: AgentChatContext
    room: "RoomClient"
    toolkits: tuple[Toolkit, ...]
    model: str
    output_schema: Schema | None = None
    on_behalf_of: Any = None


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that answers `then` once the event is set, and fails after `timeout` seconds."""

    event: asyncio.Event
    then: Any = "done"
    timeout: float = 30.0
    # Set when the model begins to wait.
    reached: asyncio.Event = field(default_factory=asyncio.Event)


Step: TypeAlias = str | dict[str, Any] | BaseException | Wait | Callable[[ScriptedCall], Any | Awaitable[Any]]


def wait_until(event: asyncio.Event, *, then: Any = "done", timeout: float = 30.0) -> Wait:
    """A step that answers `then` once the event is set."""
    return Wait(event, then, timeout)


class ScriptedLLM(LLMAdapter[dict[str, Any]]):
    """Takes one step of the script per `next()`.

    A step that is a text or dict is the answer; an exception is raised; a callable gets the ScriptedCall, and may be async.
    After the script, `default` is the answer; without one, LLMError is raised. `calls` records what each `next()` was given,
    `contexts` the conversations. Each answer reports `tokens` (input, output) as used.
    """

    def __init__(
        self,
        script: Iterable[Step] = (),
        *,
        default: Step | None = None,
        model: str = "scripted",
        tokens: tuple[int, int] = (0, 0),
    ) -> None:
        self._script = list(script)
        self._default = default
        self._model = model
        self._tokens = tokens
        self.calls: list[ScriptedCall] = []

    def __repr__(self) -> str:
        return f"<ScriptedLLM calls={len(self.calls)} left={len(self._script)}>"

    @property
    def contexts(self) -> list[AgentChatContext]:
        """The conversation of each call, as it was before the answer."""
        return [call.context for call in self.calls]

    def default_model(self) -> str:
        """The name given at construction."""
        return self._model

    async def next(
        self,
        *,
        context: AgentChatContext,
        room: "RoomClient",
        toolkits: Sequence[Toolkit],
        tool_adapter: ToolResponseAdapter | None = None,
        output_schema: Schema | None = None,
        event_handler: Callable[[dict[str, Any]], None] | None = None,
        model: str | None = None,
        on_behalf_of: Any = None,
    ) -> Any:
        """Answer with the next step; a text is appended to the conversation and reported as one text event."""
        call = ScriptedCall(context.copy(), room, tuple(toolkits), model or self._model, output_schema, on_behalf_of)
        self.calls.append(call)
        answer = await _play(self._take(), call)
        report_tokens(call.model, *self._tokens)
        if isinstance(answer, str):
            context.append_assistant_message(answer)
            if event_handler is not None:
                event_handler({"type": "response.output_text.done", "text": answer})
        return answer

    def _take(self) -> Step:
        if self._script:
            return self._script.pop(0)
        if self._default is None:
            raise LLMError("the script has ended")
        return self._default


async def _play(step: Any, call: ScriptedCall) -> Any:
    if isinstance(step, Wait):
        step.reached.set()
        async with asyncio.timeout(step.timeout):
            await step.event.wait()
        return await _play(step.then, call)
    if isinstance(step, BaseException):
        raise step
    if callable(step):
        answer = step(call)
        return await answer if inspect.isawaitable(answer) else answer
    return step
