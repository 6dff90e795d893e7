"""One request to the model, streamed and read to its end.

The end is a Response, whole or not (`failure_of` tells), or a Failure for everything that a retry may cure. Errors of the
event handler are the program's own: they pass through and are never taken for a failure of the model.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from openai import AsyncOpenAI
from openai.types.responses import Response

from meshhost.openai.tools.retry import Failure, explain, explain_code

__all__ = ["ANSWER_TIMEOUT", "Event", "failure_of", "stream_response", "tokens_of"]

Event: TypeAlias = dict[str, Any]

_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
# Seconds for a whole answer, which bounds a stream that sends a few bytes for ever.
ANSWER_TIMEOUT = 1800.0


async def stream_response(
    client: AsyncOpenAI,
    parameters: dict[str, Any],
    on_event: Callable[[Event], None],
    now: Callable[[], float],
    *,
    timeout: float = ANSWER_TIMEOUT,
) -> Response | Failure:
    """Send the request, pass each event to `on_event`, and return the response of the last one, however it ended.

    `now` is the wall clock, for `Retry-After` dates. `timeout` bounds the whole answer, in seconds.
    """
    handler_error: list[Exception] = []

    def hand_over(event: Event) -> None:
        try:
            on_event(event)
        except Exception as error:
            handler_error.append(error)
            raise

    try:
        async with asyncio.timeout(timeout):
            return await _read(client, parameters, hand_over)
    except TimeoutError:
        if handler_error:
            raise
        return Failure(f"the model did not finish its answer within {timeout:g} s")
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
    """Return why the response is not a complete answer, or None when it is."""
    if response.status == "failed":
        return explain_code(response.error.code if response.error else None)
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return Failure(f"the model stopped before the end of its answer: {reason or 'no reason given'}")
    return None


def tokens_of(response: Response) -> dict[str, int]:
    """Return the tokens spent, by kind; empty when the gateway does not tell."""
    if response.usage is None:
        return {}
    # As a dict: some gateways leave out members that the type declares as required.
    usage: dict[str, Any] = response.usage.to_dict(warnings=False)
    details = {**(usage.get("input_tokens_details") or {}), **(usage.get("output_tokens_details") or {})}
    kinds = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    return {kind: amount for kind in kinds if isinstance(amount := {**details, **usage}.get(kind), int)}
