"""`Translation`: one request of a caller whose provider speaks another API, and its answer translated back as it arrives.

`forwarding.py` makes one for a request, sends what it says and gives it the provider's answer. What is translated, and how, is
in `meshhost.llm`; here are the HTTP forms: errors become OpenAI's, an answer that is whole although a stream was asked for
becomes a stream, and one that stops before its end raises ConnectionResetError, upon which the caller's connection is closed
too.

A provider that is asked so stores nothing, and neither does the answer: `store` is false in it, and its id names nothing.
"""

import json
from typing import Any, Self

from aiohttp import ClientResponse, web

from meshhost.errors import InvalidRequestError
from meshhost.gateway.http import error_body, error_response, json_object, observe
from meshhost.gateway.providers.misjudged import status_of_error
from meshhost.llm.answer import AnswerReader
from meshhost.llm.builder import Event
from meshhost.llm.caller_forms import AnswerWriter, CallerForm
from meshhost.llm.dialects import Dialect
from meshhost.llm.responses_answer import ResponsesAnswerReader

__all__ = ["Translation", "send_events", "send_whole"]

_SENT_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
_OF_THE_BODY = ("Content-Length", "Content-Type", "Content-Encoding")


class Translation:
    """The request `sent` goes to `path` of the provider. `response` is the streamed answer, once it has begun."""

    def __init__(
        self,
        provider: str,
        path: str,
        member: str,
        sent: bytes,
        reader: AnswerReader,
        writer: AnswerWriter,
        *,
        streamed: bool,
    ) -> None:
        self.path = path
        self.sent = sent
        self.response: web.StreamResponse | None = None
        self._provider = provider
        self._member = member
        self._reader = reader
        self._writer = writer
        self._is_streamed = streamed

    @classmethod
    def begin(cls, form: CallerForm, dialect: Dialect | None, body: bytes, *, provider: str) -> Self:
        """Translate a request. `dialect` None is the Responses API. Raises InvalidRequestError and NotFoundError."""
        given = json_object(body)
        if given is None:
            raise InvalidRequestError("body", "expected a JSON object")
        request = form.read(given)
        sent = request if dialect is None else dialect.write(request)
        return cls(
            provider,
            "responses" if dialect is None else dialect.path,
            "output" if dialect is None else dialect.member,
            json.dumps(sent).encode(),
            ResponsesAnswerReader(request) if dialect is None else dialect.reader(request),
            form.writer(given),
            streamed=request.get("stream") is True,
        )

    async def answer(
        self, request: web.Request, upstream: ClientResponse, judged: web.StreamResponse
    ) -> web.StreamResponse:
        """Answer the caller. `judged` is what would be passed on, with its status and headers, or a body that was read."""
        if isinstance(judged, web.Response):
            body = judged.body if isinstance(judged.body, bytes) else b""
        elif judged.status == 200 and upstream.content_type == "text/event-stream":
            return await (self._stream(request, upstream, judged) if self._is_streamed else self._gather(upstream))
        else:
            body = await upstream.read()
        if judged.status != 200:
            return self._error(judged, body)
        value = json_object(body)
        if value is None or self._member not in value:
            text = f"provider {self._provider} answered with something that is no answer of its API"
            return error_response(502, text, type="upstream_unavailable")
        return await self._whole(request, value)

    async def _gather(self, upstream: ClientResponse) -> web.Response:
        """The provider streams although it was not asked to."""
        async for piece in upstream.content.iter_any():
            self._reader.feed(piece)
        self._reader.end()
        if self._reader.is_cut:
            text = f"the answer of provider {self._provider} stopped before its end"
            return error_response(502, text, type="upstream_unavailable")
        return send_whole(self._reader.body, self._writer)

    async def _stream(
        self, request: web.Request, upstream: ClientResponse, judged: web.StreamResponse
    ) -> web.StreamResponse:
        if upstream.headers.get("Content-Encoding", "identity") != "identity":
            text = f"provider {self._provider} compressed its answer, which it was asked not to do"
            return error_response(502, text, type="upstream_unavailable")
        self.response = web.StreamResponse(headers=_without_body(judged))
        self.response.headers.update(_SENT_HEADERS)
        await self.response.prepare(request)
        async for piece in upstream.content.iter_any():
            await _write(self.response, self._writer, self._reader.feed(piece))
            if self._reader.is_over:
                break
        await _write(self.response, self._writer, self._reader.end())
        if self._reader.is_cut:
            raise ConnectionResetError("the provider's answer stopped before its end")
        await _finish(self.response, self._writer)
        return self.response

    async def _whole(self, request: web.Request, value: dict[str, Any]) -> web.StreamResponse:
        events = self._reader.whole(value)
        if not self._is_streamed:
            return send_whole(self._reader.body, self._writer)
        self.response = await send_events(request, events, self._writer)
        return self.response

    def _error(self, judged: web.StreamResponse, body: bytes) -> web.Response:
        found = json_object(body) or {}
        error = found.get("error")
        if isinstance(error, dict) and found.get("type") == "error":  # Anthropic's form
            found = error_body(
                str(error.get("message") or "the model failed"), type=str(error.get("type") or "api_error")
            )
        elif not isinstance(error, dict):
            found = error_body(f"provider {self._provider} failed (HTTP {judged.status})", type="upstream_failed")
        return web.json_response(found, status=judged.status, headers=_without_body(judged))


async def send_events(request: web.Request, events: list[Event], writer: AnswerWriter) -> web.StreamResponse:
    """Answer with these events as a stream."""
    response = web.StreamResponse(headers=_SENT_HEADERS)
    await response.prepare(request)
    await _write(response, writer, events)
    await _finish(response, writer)
    return response


def send_whole(response: dict[str, Any], writer: AnswerWriter) -> web.Response:
    """Answer with the body of a response; with an error when it failed."""
    if response.get("status") == "failed":
        error = response.get("error") or {}
        text, code = str(error.get("message") or "the model failed"), str(error.get("code") or "server_error")
        return error_response(status_of_error({"code": code}), text, type=code)
    return web.json_response(writer.whole(response))


async def _write(response: web.StreamResponse, writer: AnswerWriter, events: list[Event]) -> None:
    if data := b"".join(map(writer.write, events)):
        observe(data)
        await response.write(data)


async def _finish(response: web.StreamResponse, writer: AnswerWriter) -> None:
    if last := writer.end():
        await response.write(last)
    await response.write_eof()


def _without_body(judged: web.StreamResponse) -> dict[str, str]:
    return {name: value for name, value in judged.headers.items() if name not in _OF_THE_BODY}
