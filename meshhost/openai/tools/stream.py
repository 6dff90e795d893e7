"""One request to the model, streamed and read to its end.

The end is an Answer, complete or not (`failure_of` tells), or a Failure for everything that a retry may cure. A service that
was asked for a stream may answer with plain JSON or with a web page instead; both are read here. Errors of the event handler
are the program's own: they pass through and are never taken for a failure of the model.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeAlias

from openai import AsyncOpenAI

from meshhost.openai.tools.answer import Answer, AnswerReader, answer_of, cleaned
from meshhost.openai.tools.retry import Failure, explain, explain_error

__all__ = ["ANSWER_TIMEOUT", "Event", "failure_of", "stream_response", "tokens_of"]

Event: TypeAlias = dict[str, Any]

_LAST = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
# Seconds for a whole answer, which bounds a stream that sends a few bytes for ever.
ANSWER_TIMEOUT = 1800.0


async def stream_response(
    client: AsyncOpenAI,
    parameters: dict[str, Any],
    on_event: Callable[[Event], None],
    now: Callable[[], float],
    *,
    timeout: float = ANSWER_TIMEOUT,
) -> Answer | Failure:
    """Send the request, pass each event to `on_event`, and return the answer, however it ended.

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


async def _read(client: AsyncOpenAI, parameters: dict[str, Any], on_event: Callable[[Event], None]) -> Answer | Failure:
    reader = AnswerReader()
    # Texts of tools and people may hold lone surrogates, which cannot be encoded: one would make every request fail.
    async with await client.responses.create(**cleaned(parameters), stream=True) as stream:
        if not _is_stream(stream.response.headers.get("content-type", "")):
            return _read_whole(await stream.response.aread(), reader, on_event)
        async for event in stream:
            # As Python values: JSON mode fails on the lone surrogates that some models produce.
            end = _take(event.to_dict(mode="python", warnings=False), reader, on_event)
            if end is not None:
                return end
    raise EOFError


def _take(event: Event, reader: AnswerReader, on_event: Callable[[Event], None]) -> Answer | Failure | None:
    """Take one event; return the answer, or the failure, that it ends with."""
    on_event(event)
    reader.add(event)
    kind = event.get("type")
    if kind in _LAST:
        return reader.finish(event.get("response"), _LAST[kind])
    if kind == "error" or event.get("error"):
        return explain_error(event.get("error") or event)
    return None


def _is_stream(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("", "text/event-stream")


def _read_whole(body: bytes, reader: AnswerReader, on_event: Callable[[Event], None]) -> Answer | Failure:
    """Read an answer that is not declared as a stream: a response as JSON, an error with status 200, a web page."""
    text = body.decode(errors="replace").lstrip("\ufeff \r\n\t")
    if text.startswith(("data:", "event:", ":")):  # a stream after all, under a wrong content type
        for line in text.split("\n"):
            value = _json(line[5:]) if line.startswith("data:") else None
            if isinstance(value, dict) and (end := _take(value, reader, on_event)) is not None:
                return end
        raise EOFError
    if text[:1] == "<":
        return Failure("the model gateway answered with a web page: check its address (OPENAI_BASE_URL)")
    value = _json(text)
    if not isinstance(value, dict):
        raise EOFError  # noqa: TRY004 - the body was cut off
    if value.get("error") and not value.get("output"):
        return explain_error(value["error"])
    if value.get("object") == "error":
        return explain_error(value)
    if "output" not in value:
        return Failure("the model gateway's answer is not one of the Responses API: check OPENAI_BASE_URL")
    on_event({"type": "response.completed", "response": value})
    return answer_of(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def failure_of(answer: Answer) -> Failure | None:
    """Return why the answer is not complete, or None when it is."""
    match answer.status:
        case "failed":
            return explain_error(answer.error)
        case "incomplete":
            return Failure(f"the model stopped before the end of its answer: {answer.reason or 'no reason given'}")
        case "cancelled" | "in_progress" | "queued":
            return Failure(f"the model did not finish its answer: {answer.status}")
        case _:
            return None


def tokens_of(answer: Answer) -> dict[str, int]:
    """Return the tokens spent, by kind; empty when the gateway does not tell."""
    details: dict[str, Any] = {}
    for name in ("input_tokens_details", "output_tokens_details"):
        if isinstance(found := answer.usage.get(name), dict):
            details |= found
    kinds = ("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    return {kind: amount for kind in kinds if isinstance(amount := {**details, **answer.usage}.get(kind), int)}
