"""One request to the model, streamed and read to its end.

The end is an Answer, complete or not (`failure_of` tells), or a Failure for everything that a retry may cure. A service that
was asked for a stream may answer with plain JSON or with a web page instead; both are read here. Errors of the event handler
are the program's own: they pass through and are never taken for a failure of the model.

The request is one of the Responses API. With a `dialect` it is written for another API and its answer is translated back, so
that everything above this module, and the program's event handler, knows one form only. Such an API is asked by the client's
plain `post`, which no version of its library changes, and which clients of other providers' libraries have as well.
"""

import asyncio
import importlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from openai import AsyncOpenAI

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.llm.answer import AnswerReader as TranslatingReader
from meshhost.llm.dialects import Dialect
from meshhost.openai.tools.answer import Answer, AnswerReader, cleaned
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
    dialect: Dialect | None = None,
) -> Answer | Failure:
    """Send the request, pass each event to `on_event`, and return the answer, however it ended.

    `now` is the wall clock, for `Retry-After` dates. `timeout` bounds the whole answer, in seconds. `dialect` is the API of the
    service, if it is another than the Responses API.
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
            if dialect is None:
                return await _read(client, parameters, hand_over)
            return await _read_translated(client, parameters, hand_over, dialect)
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
            return _read_whole(await stream.response.aread(), _Untranslated(), reader, on_event)
        async for event in stream:
            # As Python values: JSON mode fails on the lone surrogates that some models produce.
            end = _take(event.to_dict(mode="python", warnings=False), reader, on_event)
            if end is not None:
                return end
    raise EOFError


async def _read_translated(
    client: AsyncOpenAI, parameters: dict[str, Any], on_event: Callable[[Event], None], dialect: Dialect
) -> Answer | Failure:
    request = {**cleaned(parameters), "stream": True}
    headers = request.pop("extra_headers", None) or {}
    try:
        body = dialect.write(request)
    except (InvalidRequestError, NotFoundError) as error:
        return Failure(f"the request has no form in the {dialect.name} API: {error}", status=400)
    reader, translator = AnswerReader(), dialect.reader(request)
    async with await _post(client, dialect.path, body, headers) as stream:
        if not _is_stream(stream.response.headers.get("content-type", "")):
            source = _Translated(translator, dialect)
            return _read_whole(await stream.response.aread(), source, reader, on_event)
        async for piece in stream.response.aiter_bytes():
            if (end := _take_all(translator.feed(piece), reader, on_event)) is not None:
                return end
        if (end := _take_all(translator.end(), reader, on_event)) is not None:
            return end
    raise EOFError


async def _post(client: Any, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> Any:
    """Ask for a stream. `client` is one of openai's library, or of another that is generated as it is (Anthropic's)."""
    packages = (importlib.import_module(kind.__module__.partition(".")[0]) for kind in type(client).__mro__)
    stream: Any = next(package.AsyncStream for package in packages if hasattr(package, "AsyncStream"))
    # The base URL of openai's library ends with the version of the API, that of Anthropic's does not.
    prefix = "" if hasattr(client, "responses") else "/v1"
    options = {"headers": headers} if headers else {}
    return await client.post(
        f"{prefix}/{path}", body=body, options=options, cast_to=object, stream=True, stream_cls=stream[object]
    )


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


def _take_all(events: list[Event], reader: AnswerReader, on_event: Callable[[Event], None]) -> Answer | Failure | None:
    for event in events:
        if (end := _take(event, reader, on_event)) is not None:
            return end
    return None


def _is_stream(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind in ("", "text/event-stream")


class _Source(Protocol):
    """What turns an API's own words into events."""

    api: str

    def line(self, value: str) -> list[Event]:
        """Return the events in one line of a stream."""
        ...

    def whole(self, body: Mapping[str, Any]) -> list[Event] | None:
        """Return the events of a whole answer; None for a body that is none of this API."""
        ...


class _Untranslated:
    """The Responses API."""

    api = "Responses"

    def line(self, value: str) -> list[Event]:
        found = _json(value)
        return [found] if isinstance(found, dict) else []

    def whole(self, body: Mapping[str, Any]) -> list[Event] | None:
        return [{"type": "response.completed", "response": body}] if "output" in body else None


class _Translated:
    """Another API."""

    def __init__(self, reader: TranslatingReader, dialect: Dialect) -> None:
        self.api = dialect.name
        self._reader = reader
        self._member = dialect.member

    def line(self, value: str) -> list[Event]:
        return self._reader.line(value.strip().encode(errors="replace"))

    def whole(self, body: Mapping[str, Any]) -> list[Event] | None:
        return self._reader.whole(body) if self._member in body else None


def _read_whole(
    body: bytes, source: _Source, reader: AnswerReader, on_event: Callable[[Event], None]
) -> Answer | Failure:
    """Read an answer that is not declared as a stream: a response as JSON, an error with status 200, a web page."""
    text = body.decode(errors="replace").lstrip("\ufeff \r\n\t")
    if text.startswith(("data:", "event:", ":")):  # a stream after all, under a wrong content type
        for line in text.split("\n"):
            events = source.line(line[5:]) if line.startswith("data:") else []
            if (end := _take_all(events, reader, on_event)) is not None:
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
    whole = source.whole(value)
    if whole is None:
        return Failure(f"the model gateway's answer is not one of the {source.api} API: check OPENAI_BASE_URL")
    if (end := _take_all(whole, reader, on_event)) is None:
        raise EOFError
    return end


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
