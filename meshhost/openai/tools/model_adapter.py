"""What the adapters of all APIs have in common: `ModelAdapter`.

Agents call `next` with their conversation and toolkits. The adapter builds the options of a request of the Responses API, opens
a client and runs an `Exchange`; a subclass says which client, which options, and, if the service speaks another API, the
dialect that the request is written in. Conversations have one form whatever the API, the items of the Responses API, so that an
agent may go on with another adapter where it was. An adapter keeps no state of a conversation: one serves any number of agents
and rooms at once. Every call is a span `llm.next` with the tokens it took.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.llm.dialects import Dialect
from meshhost.openai.tools.built_types import types_are_built
from meshhost.openai.tools.exchange import Exchange
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.openai.tools.stream import ANSWER_TIMEOUT, Event
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter
from meshhost.tools.schema import Schema, is_strict
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit
from meshhost.traces.recording import recorded

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["ModelAdapter", "merged", "written_with"]

tracer = trace.get_tracer("meshhost.openai")


class ModelAdapter(LLMAdapter[Event]):
    """Continues conversations with a model. Subclasses choose the client and the API."""

    def __init__(
        self,
        *,
        model: str,
        provider: str,
        parallel_tool_calls: bool | None = None,
        reasoning_effort: str | None = None,
        max_tool_rounds: int = 50,
        retry: RetryPolicy | None = None,
        answer_timeout: float = ANSWER_TIMEOUT,
        dialect: Dialect | None = None,
        client: Any = None,
        base_url: str | None = None,
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._model = model
        self._provider = provider
        self._parallel_tool_calls = parallel_tool_calls
        self._reasoning_effort = reasoning_effort
        self._max_tool_rounds = max_tool_rounds
        self._retry = retry or RetryPolicy()
        self._answer_timeout = answer_timeout
        self._dialect = dialect

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._model!r}>"

    def default_model(self) -> str:
        """Return the name of the model that is used when a call names none."""
        return self._model

    async def check_for_termination(self, *, context: AgentChatContext, room: "RoomClient") -> bool:
        """Return whether the last message is the model's own."""
        return bool(context.messages) and context.messages[-1].get("role") == "assistant"

    async def next(
        self,
        *,
        context: AgentChatContext,
        room: "RoomClient",
        toolkits: Sequence[Toolkit],
        tool_adapter: ToolResponseAdapter | None = None,
        output_schema: Schema | None = None,
        event_handler: Callable[[Event], None] | None = None,
        model: str | None = None,
        on_behalf_of: Any = None,
    ) -> Any:
        """Let the model answer, with as many tool calls as it needs, and append everything to the conversation.

        `event_handler` gets each event of the stream as a dict, and `meshhost.turn.retried` when the events of the present
        turn are void. The model receives failures of tools as their results. Returns the text, or the parsed JSON when there
        is an `output_schema`. Raises LLMError (with the HTTP status if any) and LLMRefusalError; tokens are added to
        `context.usage` in any case. After a cancellation the conversation can be continued.
        """
        if self._dialect is None:
            await types_are_built()
        name = model or self._model
        bundle = ToolBundle(toolkits)
        tool_context = ToolContext(room=room, caller=room.local_participant, on_behalf_of=on_behalf_of)

        async def is_over() -> bool:
            return await self.check_for_termination(context=context, room=room)

        spent = dict(context.usage)
        attributes = {"llm.model": name, "llm.provider": self._provider}
        with recorded(tracer, "llm.next", attributes=attributes, sink=getattr(room, "traces", None)) as span:
            async with self._client_for(room) as client:
                try:
                    return await Exchange(
                        client=client,
                        context=context,
                        room=room,
                        options=self._options(name, bundle, output_schema),
                        bundle=bundle,
                        tool_context=tool_context,
                        tool_adapter=tool_adapter or OpenAIResponsesToolResponseAdapter(),
                        is_over=is_over,
                        retry=self._retry,
                        carries_trace=self._is_through_room,
                        max_tool_rounds=self._max_tool_rounds,
                        output_schema=output_schema,
                        on_event=event_handler,
                        provider=self._provider,
                        answer_timeout=self._answer_timeout,
                        dialect=self._dialect,
                    ).run()
                finally:
                    usage = {f"llm.{kind}": amount - spent.get(kind, 0) for kind, amount in context.usage.items()}
                    span.set_attributes(usage)

    @property
    def _is_through_room(self) -> bool:
        """Whether the model is asked through the gateway of the room, and not at an address of the program's own."""
        return self._client is None and self._base_url is None

    @abstractmethod
    def _client_for(self, room: "RoomClient") -> AbstractAsyncContextManager[Any]:
        """Return the client for one call of `next`, as a block that closes it if it is ours."""

    def _options(self, model: str, bundle: ToolBundle, output_schema: Schema | None) -> dict[str, Any]:
        options: dict[str, Any] = {"model": model}
        if tools := bundle.to_json():
            options["tools"] = tools
            if self._parallel_tool_calls is not None:
                options["parallel_tool_calls"] = self._parallel_tool_calls
        if self._reasoning_effort is not None:
            options["reasoning"] = {"effort": self._reasoning_effort}
        if output_schema is not None:
            options["text"] = {"format": _format(output_schema)}
        return options


def _format(schema: Schema) -> dict[str, Any]:
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": is_strict(schema)}


def written_with(dialect: Dialect, options: Mapping[str, Any]) -> Dialect:
    """Return the dialect whose requests have these members of its own API besides, which win."""

    def write(body: Mapping[str, Any]) -> dict[str, Any]:
        return merged(dialect.write(body), dict(options))

    return replace(dialect, write=write) if options else dialect


def merged(options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return both; `more` overrides. Members that are objects on both sides are merged one level deep."""
    both = {**options, **more}
    for name in options.keys() & more.keys():
        if isinstance(options[name], dict) and isinstance(more[name], dict):
            both[name] = {**options[name], **more[name]}
    return both
