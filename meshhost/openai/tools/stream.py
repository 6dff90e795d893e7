"""One request to the model, read to its end."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from openai import AsyncOpenAI
from openai.types.responses import Response

from meshhost.openai.tools.retry import Failure, explain, explain_code

__all__ = ["Event", "failure_of", "stream_response", "tokens_of"]

Event: TypeAlias = dict[str, Any]

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
# Seconds for a whole answer; a stream that drips on forever ends here.
ANSWER_TIMEOUT = 1800.0


async def stream_response(
    client: AsyncOpenAI, parameters: dict[str, Any], on_event: Callable[[Event], None], now: Callable[[], float]
) -> Response | Failure:
    """Ask, hand each event to `on_event`, and return the response in the last one, however it ended."""
    handler_error: list[Exception] = []

    def hand_over(event: Event) -> None:
        try:
            on_event(event)
        except Exception as error:
            handler_error.append(error)
            raise

    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await _read(client, parameters, hand_over)
    except TimeoutError:
        if handler_error:
            raise
        return Failure(f"the model did not finish its answer within {ANSWER_TIMEOUT:g} s")
    except Exception as error:
        failure = None if error in handler_error else explain(error, now())
        if failure is None:
            raise
        return failure


async def _read(
    client: AsyncOpenAI, parameters: dict[str, Any], on_event: Callable[[Event], None]
) -> Response | Failure:
    async with await client.responses.create(**parameters, stream=True) as stream:
        async for event in stream:
            data = event.to_dict(mode="json", warnings=False)
            on_event(data)
            if event.type in _LAST:
                response: Response = event.response
                return response
            if event.type == "error":
                return explain_code(event.code)
    raise EOFError


def failure_of(response: Response) -> Failure | None:
    """Why the response is not a whole answer, or None when it is."""
    if response.status == "failed":
        return explain_code(response.error.code if response.error else None)
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return Failure(f"the model stopped before the end of its answer: {reason or 'no reason given'}")
    return None


def tokens_of(response: Response) -> dict[str, int]:
    """The tokens spent, by kind; empty when the gateway does not say."""
    if response.usage is None:
        return {}
    # As a dict: gateways leave members out that the type declares.
    usage: dict[str, Any] = response.usage.to_dict(warnings=False)
    details = {**(usage.get("input_tokens_details") or {}), **(usage.get("output_tokens_details") or {})}
    kinds = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    return {kind: amount for kind in kinds if isinstance(amount := {**details, **usage}.get(kind), int)}
