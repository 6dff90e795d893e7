"""`OpenAIResponsesAdapter`: a model behind OpenAI's Responses API as an LLMAdapter.

Agents call `next` with their conversation and toolkits. The adapter builds the request's options, opens a client for the
room's gateway and runs an `Exchange`. It keeps no state of a conversation, so one adapter serves any number of agents and
rooms at once. Every call is a span `llm.next` with the tokens it took.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI
from opentelemetry import trace

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.openai.proxy import get_client
from meshhost.openai.tools.built_types import types_are_built
from meshhost.openai.tools.exchange import Exchange
from meshhost.openai.tools.retry import RetryPolicy
from meshhost.openai.tools.stream import ANSWER_TIMEOUT, Event
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.openai.tools.tool_response import OpenAIResponsesToolResponseAdapter
from meshhost.settings import read_settings
from meshhost.tools.schema import Schema, is_strict
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit
from meshhost.traces.recording import recorded

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["DEFAULT_MODEL", "OpenAIResponsesAdapter"]

DEFAULT_MODEL = "gpt-5.1"
tracer = trace.get_tracer("meshhost.openai")


class OpenAIResponsesAdapter(LLMAdapter[Event]):
    """Continues conversations with a model, through the room's gateway unless a `client` is given.

    `model` defaults to OPENAI_MODEL, then to DEFAULT_MODEL. `response_options` are further parameters of the request and
    override ours. The model may call tools in at most `max_tool_rounds` rounds before it answers. `answer_timeout` bounds
    one answer, in seconds. `provider` names the provider in logs and spans.
    """

    def __init__(
        self,
        model: str | None = None,
        parallel_tool_calls: bool | None = None,
        client: AsyncOpenAI | None = None,
        response_options: dict[str, Any] | None = None,
        reasoning_effort: str | None = None,
        provider: str = "openai",
        max_tool_rounds: int = 50,
        retry: RetryPolicy | None = None,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._model = model or read_settings().openai_model or DEFAULT_MODEL
        self._parallel_tool_calls = parallel_tool_calls
        self._client = client
        self._response_options = dict(response_options or {})
        self._reasoning_effort = reasoning_effort
        self._provider = provider
        self._max_tool_rounds = max_tool_rounds
        self._retry = retry or RetryPolicy()
        self._answer_timeout = answer_timeout

    def __repr__(self) -> str:
        return f"<OpenAIResponsesAdapter {self._model!r}>"

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
                        carries_trace=self._client is None,
                        max_tool_rounds=self._max_tool_rounds,
                        output_schema=output_schema,
                        on_event=event_handler,
                        provider=self._provider,
                        answer_timeout=self._answer_timeout,
                    ).run()
                finally:
                    usage = {f"llm.{kind}": amount - spent.get(kind, 0) for kind, amount in context.usage.items()}
                    span.set_attributes(usage)

    @asynccontextmanager
    async def _client_for(self, room: "RoomClient") -> AsyncIterator[AsyncOpenAI]:
        if self._client is not None:
            yield self._client
            return
        async with get_client(room=room) as client:
            yield client

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
        return _merged(options, self._response_options)


def _format(schema: Schema) -> dict[str, Any]:
    return {"type": "json_schema", "name": "answer", "schema": schema, "strict": is_strict(schema)}


def _merged(options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return both; `more` overrides. Members that are objects on both sides are merged one level deep."""
    merged = {**options, **more}
    for name in options.keys() & more.keys():
        if isinstance(options[name], dict) and isinstance(more[name], dict):
            merged[name] = {**options[name], **more[name]}
    return merged
