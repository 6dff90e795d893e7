"""A model provider on a local port that follows a script: for agents that talk to an OpenAI-compatible service.

Set OPENAI_BASE_URL, or a provider of the gateway, to `base_url`. It speaks the Responses API as a provider does, streams
included, so that the adapter, the client library and the gateway under test are the real ones.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from meshhost.gateway.http import MAX_BODY_BYTES, error_response
from meshhost.llm.builder import Event, ResponseBuilder, TokenUsage
from meshhost.llm.sse import DONE, encode_event

__all__ = ["ReceivedRequest", "ScriptedUpstream"]

_Step = Callable[[web.Request, "ReceivedRequest"], Awaitable[web.StreamResponse]]
_HANG_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it arrived. `authorization` is that header, "" when it was missing; `body` is {} unless it is JSON."""

    method: str
    path: str
    authorization: str
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False)


class ScriptedUpstream:
    """Serves `{base_url}/responses` on a loopback port inside `async with`; each request takes the next step of the script.

    `say`, `call_tool`, `refuse`, `fail`, `hang` and `cut_after` each add a step and return the object, so that they can be
    chained. A request beyond the script is answered with 500. Answers are SSE when the request says `stream: true`, else plain
    JSON. `GET {base_url}/models` lists `models`. `abandoned` is set when a client closes a request that hangs.
    """

    def __init__(
        self, *, models: tuple[str, ...] = ("scripted",), input_tokens: int = 11, output_tokens: int = 7
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        self.abandoned = asyncio.Event()
        self.base_url = ""
        self._models = models
        self._usage = (input_tokens, output_tokens)
        self._steps: deque[_Step] = deque()
        self._arrivals = asyncio.Condition()
        self._waited = 0
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_route("*", "/v1/{path:.*}", self._take_step)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def say(self, text: str, *, hold: asyncio.Event | None = None) -> Self:
        """Answer with a text, in a delta per word. With `hold`, a stream pauses after the first delta until it is set."""

        def play(out: ResponseBuilder) -> Iterator[Event]:
            yield from out.text_begin()
            for piece in _words(text):
                yield from out.text_delta(piece)
            yield from out.text_end()

        return self._add(self._answer(play, hold))

    def call_tool(self, name: str, arguments: dict[str, Any], *also: tuple[str, dict[str, Any]]) -> Self:
        """Answer with a call of the tool `name`, and in the same answer with the calls in `also`: (name, arguments) each."""
        calls = [(called, json.dumps(given)) for called, given in ((name, arguments), *also)]

        def play(out: ResponseBuilder) -> Iterator[Event]:
            for called, text in calls:
                yield from out.call_begin(called)
                for start in range(0, len(text), 16):
                    yield from out.call_delta(text[start : start + 16])
                yield from out.call_end()

        return self._add(self._answer(play))

    def refuse(self, why: str) -> Self:
        """Answer with a refusal."""
        return self._add(self._answer(lambda out: iter(out.refusal(why))))

    def fail(self, status: int, *, retry_after: float | None = None) -> Self:
        """Answer with an HTTP error; `retry_after` in seconds."""

        async def step(_request: web.Request, _received: ReceivedRequest) -> web.StreamResponse:
            return error_response(
                status, f"scripted failure {status}", type="scripted_failure", retry_after=retry_after
            )

        return self._add(step)

    def hang(self) -> Self:
        """Never answer; `abandoned` is set when the client closes the request."""

        async def step(_request: web.Request, _received: ReceivedRequest) -> web.StreamResponse:
            try:
                await asyncio.sleep(_HANG_SECONDS)
            except asyncio.CancelledError:
                self.abandoned.set()
                raise
            return error_response(504, "scripted hang", type="scripted_failure")

        return self._add(step)

    def cut_after(self, n_bytes: int, text: str = "a text that never gets to its end") -> Self:
        """Begin a streamed answer with `text` and close the connection after `n_bytes` of its body."""

        async def step(request: web.Request, received: ReceivedRequest) -> web.StreamResponse:
            out = self._builder(received)
            events = [*out.begin(), *out.text_begin(), *out.text_delta(text)]
            response = await _begin_stream(request)
            await response.write(b"".join(map(encode_event, events))[:n_bytes])
            if request.transport is not None:
                request.transport.close()
            return response

        return self._add(step)

    async def wait_for_request(self, *, timeout: float = 10.0) -> ReceivedRequest:
        """Wait for the next request that no earlier call returned. Raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout), self._arrivals:
            await self._arrivals.wait_for(lambda: len(self.requests) > self._waited)
            self._waited += 1
            return self.requests[self._waited - 1]

    def _add(self, step: _Step) -> Self:
        self._steps.append(step)
        return self

    def _answer(self, play: Callable[[ResponseBuilder], Iterator[Event]], hold: asyncio.Event | None = None) -> _Step:
        async def step(request: web.Request, received: ReceivedRequest) -> web.StreamResponse:
            out = self._builder(received)
            events = _whole(out, play)
            if received.body.get("stream") is True:
                return await _stream(request, events, hold)
            deque(events, maxlen=0)
            return web.json_response(out.body)

        return step

    def _builder(self, received: ReceivedRequest) -> ResponseBuilder:
        return ResponseBuilder(
            str(received.body.get("model") or self._models[0]), received.body, TokenUsage(*self._usage)
        )

    async def _take_step(self, request: web.Request) -> web.StreamResponse:
        received = await _receive(request)
        async with self._arrivals:
            self.requests.append(received)
            self._arrivals.notify_all()
        if not self._steps:
            return error_response(500, "the script has no further step", type="scripted_failure")
        return await self._steps.popleft()(request, received)

    async def _list_models(self, _request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "script"} for name in self._models]
        return web.json_response({"object": "list", "data": data})


async def _receive(request: web.Request) -> ReceivedRequest:
    body: Any = {}
    with contextlib.suppress(ValueError):
        body = json.loads(await request.read())
    return ReceivedRequest(
        request.method,
        request.match_info["path"],
        request.headers.get("Authorization", ""),
        dict(request.headers),
        body if isinstance(body, dict) else {},
    )


def _whole(out: ResponseBuilder, play: Callable[[ResponseBuilder], Iterator[Event]]) -> Iterator[Event]:
    yield from out.begin()
    yield from play(out)
    yield from out.complete()


async def _begin_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def _stream(request: web.Request, events: Iterator[Event], hold: asyncio.Event | None) -> web.StreamResponse:
    response = await _begin_stream(request)
    for event in events:
        await response.write(encode_event(event))
        if hold is not None and event["type"].endswith(".delta"):
            await hold.wait()
    await response.write(DONE)
    await response.write_eof()
    return response


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]
