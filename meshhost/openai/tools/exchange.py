"""The turns of one `LLMAdapter.next()`: ask the model, run the tools it calls, ask again, until it answers.

`run` belongs to the task of the caller. The tool calls of one turn run side by side in a TaskGroup inside it; nothing runs
on when `run` has ended or was cancelled. Requests that fail for a passing reason are retried (`retry.py`); events of the
failed try were shown already, so the handler is told to take them back (`meshhost.turn.retried`).

An answer without text and without calls, reasoning alone included, is an error: work must not count as done because the model
said nothing. After tool calls of the same exchange it is a legitimate end: the work was done by the tools, and asking for it
again would do it twice.

Invariants: a tool call in the conversation is always followed by its answer, also after a cancellation, since the API
refuses a conversation with an open call; an empty answer is not kept, since it refuses reasoning without what follows it.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall
from opentelemetry import trace

from meshhost.agents.adapter import ToolResponseAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError, LLMError
from meshhost.llm.dialects import Dialect
from meshhost.openai.tools.answer import Answer
from meshhost.openai.tools.retry import Failure, RetryPolicy, with_retries
from meshhost.openai.tools.stream import ANSWER_TIMEOUT, Event, failure_of, stream_response, tokens_of
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.openai.tools.tool_response import call_output
from meshhost.tools.schema import Schema, check_value
from meshhost.tools.tool import ToolContext
from meshhost.traces.recording import carried_headers, recorded
from meshhost.usage import report_tokens

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)
tracer = trace.get_tracer("meshhost.openai")

_INTERRUPTED = "error: the call was cancelled; whether it took effect is not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One exchange with the model. `options` are the request's parameters without the conversation.

    `dialect` is the API of the service, if it is another than the Responses API.
    """

    client: AsyncOpenAI
    context: AgentChatContext
    room: "RoomClient"
    options: dict[str, Any]
    bundle: ToolBundle
    tool_context: ToolContext
    tool_adapter: ToolResponseAdapter
    is_over: Callable[[], Awaitable[bool]]
    retry: RetryPolicy
    max_tool_rounds: int
    output_schema: Schema | None = None
    on_event: Callable[[Event], None] | None = None
    provider: str = "openai"
    answer_timeout: float = ANSWER_TIMEOUT
    carries_trace: bool = False  # to the gateway of the room, and to nobody else
    dialect: Dialect | None = None
    # One mutable cell in a frozen class: whether the present try has shown events that a retry must take back.
    _shown: list[bool] = field(default_factory=lambda: [False])

    async def run(self) -> Any:
        """Return the model's final text, or the JSON value when there is a schema. It may correct one wrong answer.

        The text is "" when the model ended after tool calls without a word; otherwise an empty answer raises LLMError.
        """
        answer, used_tools = await self._converse()
        text = answer.text()
        if self.output_schema is None:
            if answer.is_empty and not used_tools:
                raise LLMError("the model gave an empty answer: no text and no tool call")
            return text
        try:
            return _parsed(text, self.output_schema)
        except InvalidRequestError as wrong:
            self.context.append_user_message(
                f"That answer does not fit the schema ({wrong}). Answer again, with nothing but JSON that does."
            )
        try:
            return _parsed((await self._converse())[0].text(), self.output_schema)
        except InvalidRequestError as wrong:
            raise LLMError(f"the model's answer does not fit the output schema, twice: {wrong}") from None

    async def _converse(self) -> tuple[Answer, bool]:
        """Return the last answer, and whether tools were called before it or in it."""
        used_tools = False
        for tool_round in range(self.max_tool_rounds + 1):
            answer = await self._turn()
            used_tools = used_tools or answer.used_tools
            calls = [ResponseFunctionToolCall.construct(**item) for item in answer.calls]
            if calls and tool_round == self.max_tool_rounds:
                break
            await self._run_calls(answer, calls)
            if await self._hand_over(answer):
                continue
            if not calls or await self.is_over():
                return answer, used_tools
        raise LLMError(f"the model still called tools after {self.max_tool_rounds} rounds; raise max_tool_rounds")

    async def _hand_over(self, answer: Answer) -> bool:
        """Hand the items of hosted tools to their handlers; whether the provider is answered, and so goes on."""
        answers = [await self.bundle.handle(self.tool_context, item) for item in answer.items]
        given = [each for each in answers if each is not None]
        self.context.messages.extend(given)
        return bool(given)

    async def _turn(self) -> Answer:
        with recorded(tracer, "llm.turn") as span:
            span.set_attributes({"llm.model": self.options["model"], "llm.provider": self.provider})
            self._shown[0] = False
            response = await with_retries(self._attempt, self.retry, self._take_back)
            span.set_attributes({f"llm.{kind}": amount for kind, amount in tokens_of(response).items()})
            return response

    async def _attempt(self) -> Answer | Failure:
        response = await stream_response(
            self.client,
            self._parameters(),
            self._show,
            self.retry.clock.time,
            timeout=self.answer_timeout,
            dialect=self.dialect,
        )
        if isinstance(response, Failure):
            return response
        self._count(tokens_of(response))
        return failure_of(response) or response

    def _parameters(self) -> dict[str, Any]:
        parameters = {**self.options, "input": self.context.conversation}
        if rules := self.context.get_system_instructions():
            parameters["instructions"] = rules
        if self.context.previous_response_id is not None:
            parameters["previous_response_id"] = self.context.previous_response_id
        if self.carries_trace and (headers := carried_headers()):
            parameters["extra_headers"] = {**headers, **(parameters.get("extra_headers") or {})}
        return parameters

    def _show(self, event: Event) -> None:
        if self.on_event is not None:
            self._shown[0] = True
            self.on_event(event)

    def _take_back(self, tried: int, failure: Failure) -> None:
        if self._shown[0]:
            self._show({"type": "meshhost.turn.retried", "tried": tried, "reason": failure.text})
            self._shown[0] = False

    def _count(self, tokens: dict[str, int]) -> None:
        model = self.options["model"]
        self.context.add_usage(tokens)
        report_tokens(model, tokens.get("input_tokens", 0), tokens.get("output_tokens", 0))
        logger.info("the model answered", extra={"model": model, **tokens})
        self.room.developer.log_nowait(type="llm.usage", data={"model": model, "provider": self.provider, **tokens})

    async def _run_calls(self, answer: Answer, calls: list[ResponseFunctionToolCall]) -> None:
        """Run the tool calls side by side and append the answer with theirs, also when cancelled meanwhile."""
        answers: dict[str, list[dict[str, Any]]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._call(call, answers), name=f"tool {call.name}")
        finally:
            if not answer.is_empty:
                self.context.messages.extend(answer.items)
            for call in calls:
                self.context.messages.extend(answers.get(call.call_id) or [call_output(call.call_id, _INTERRUPTED)])

    async def _call(self, call: ResponseFunctionToolCall, answers: dict[str, list[dict[str, Any]]]) -> None:
        result = await self.bundle.execute(context=self.tool_context, name=call.name, arguments=call.arguments)
        try:
            answers[call.call_id] = await self.tool_adapter.create_messages(
                context=self.context, tool_call=call, room=self.room, response=result
            )
        except Exception:  # the adapter is the program's code and may raise anything; the conversation goes on
            logger.warning(
                "the answer of a tool could not be shown to the model", extra={"tool": call.name}, exc_info=True
            )
            answers[call.call_id] = [call_output(call.call_id, "error: the tool's answer could not be shown")]


def _parsed(text: str, schema: Schema) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("", "the answer is not JSON") from None
    check_value(value, schema)
    return value
