"""Model services on a socket, one for each API: they say what a script tells them to, well or badly.

A script is a list of acts: `("text", …)`, `("thought", …)`, `("call", name, arguments)`, `("refusal", …)`. Each `Voice` renders
acts as its API's stream, or as a whole answer; `ModelService` serves such bytes, in pieces as small as a test wants them, and
keeps what it was asked.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from meshhost.llm.builder import ResponseBuilder, TokenUsage

__all__ = ["VOICES", "Asked", "ModelService", "Voice"]

Act = tuple[Any, ...]
INPUT, CACHED, OUTPUT = 11, 3, 7
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived."""

    path: str
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any]


class Voice:
    """How an API says things."""

    name = ""
    path = ""

    def stream(self, acts: Sequence[Act], *, stop: str = "end") -> bytes:
        """A whole stream. `stop` is end, length or filter."""
        raise NotImplementedError

    def whole(self, acts: Sequence[Act], *, stop: str = "end") -> dict[str, Any]:
        """A whole answer."""
        raise NotImplementedError

    def error(self, kind: str, message: str) -> bytes:
        """An error inside a stream."""
        raise NotImplementedError

    def sse(self, *events: dict[str, Any]) -> bytes:
        """Events as bytes."""
        return b"".join(self._event(event) for event in events)

    def _event(self, event: dict[str, Any]) -> bytes:
        return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


class ResponsesVoice(Voice):
    """The Responses API."""

    name, path = "responses", "responses"

    def stream(self, acts: Sequence[Act], *, stop: str = "end") -> bytes:
        return self.sse(*self._played(acts, stop)[0])

    def whole(self, acts: Sequence[Act], *, stop: str = "end") -> dict[str, Any]:
        return self._played(acts, stop)[1]

    def error(self, kind: str, message: str) -> bytes:
        return self.sse({"type": "error", "code": kind, "message": message})

    def _played(self, acts: Sequence[Act], stop: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        out = ResponseBuilder("m", {}, TokenUsage(INPUT, OUTPUT, CACHED))
        events = out.begin()
        for act in acts:
            match act:
                case ("text", text):
                    events += [
                        *out.text_begin(),
                        *[e for piece in pieces(text) for e in out.text_delta(piece)],
                        *out.text_end(),
                    ]
                case ("thought", text):
                    events += [
                        *out.reasoning_begin(),
                        *out.reasoning_delta(text),
                        *out.reasoning_end(encrypted_content="sealed"),
                    ]
                case ("call", name, arguments):
                    events += out.call_begin(name)
                    events += [e for piece in pieces(written(arguments)) for e in out.call_delta(piece)]
                    events += out.call_end()
                case ("refusal", text):
                    events += out.refusal(text)
        reasons = {"length": "max_output_tokens", "filter": "content_filter"}
        events += out.complete() if stop == "end" else out.incomplete(reasons[stop])
        return events, out.body


class ChatVoice(Voice):
    """Chat completions."""

    name, path = "chat", "chat/completions"

    def stream(self, acts: Sequence[Act], *, stop: str = "end") -> bytes:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        calls = 0
        for act in acts:
            match act:
                case ("text", text):
                    deltas += [{"content": piece} for piece in pieces(text)]
                case ("thought", text):
                    deltas += [{"reasoning_content": piece} for piece in pieces(text)]
                case ("refusal", text):
                    deltas += [{"refusal": piece} for piece in pieces(text)]
                case ("call", name, arguments):
                    first = {
                        "index": calls,
                        "id": f"call_{calls}",
                        "type": "function",
                        "function": {"name": name, "arguments": ""},
                    }
                    deltas += [{"tool_calls": [first]}]
                    deltas += [
                        {"tool_calls": [{"index": calls, "function": {"arguments": piece}}]}
                        for piece in pieces(written(arguments))
                    ]
                    calls += 1
        chunks = [{**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        last = {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": self._reason(acts, stop)}]}
        return self.sse(*chunks, last, {**HEAD, "choices": [], "usage": self._usage()}) + b"data: [DONE]\n\n"

    def whole(self, acts: Sequence[Act], *, stop: str = "end") -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        names = {"text": "content", "thought": "reasoning_content", "refusal": "refusal"}
        for number, act in enumerate(acts):
            if act[0] == "call":
                function = {"name": act[1], "arguments": written(act[2])}
                message.setdefault("tool_calls", []).append(
                    {"id": f"call_{number}", "type": "function", "function": function}
                )
            else:
                message[names[act[0]]] = act[1]
        choice = {"index": 0, "message": message, "finish_reason": self._reason(acts, stop)}
        return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def error(self, kind: str, message: str) -> bytes:
        return self.sse({"error": {"type": kind, "message": message}})

    def _reason(self, acts: Sequence[Act], stop: str) -> str:
        ended = "tool_calls" if any(act[0] == "call" for act in acts) else "stop"
        return {"length": "length", "filter": "content_filter"}.get(stop, ended)

    def _usage(self) -> dict[str, Any]:
        return {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "prompt_tokens_details": {"cached_tokens": CACHED}}

    def _event(self, event: dict[str, Any]) -> bytes:
        return f"data: {json.dumps(event)}\n\n".encode()


class MessagesVoice(Voice):
    """Anthropic's Messages API."""

    name, path = "messages", "messages"

    def stream(self, acts: Sequence[Act], *, stop: str = "end") -> bytes:
        usage = {"input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED, "output_tokens": 1}
        start = {"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        for at, act in enumerate(acts):
            begun, deltas = self._block(act, at)
            events.append({"type": "content_block_start", "index": at, "content_block": begun})
            events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": at})
        delta = {"stop_reason": self._reason(acts, stop), "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": OUTPUT}})
        return self.sse(*events, {"type": "message_stop"})

    def whole(self, acts: Sequence[Act], *, stop: str = "end") -> dict[str, Any]:
        blocks = []
        for at, act in enumerate(acts):
            match act:
                case ("text" | "refusal", text):
                    blocks.append({"type": "text", "text": text})
                case ("thought", text):
                    blocks.append({"type": "thinking", "thinking": text, "signature": "sig"})
                case ("call", name, arguments):
                    blocks.append({"type": "tool_use", "id": f"toolu_{at}", "name": name, "input": arguments})
        usage = {"input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED, "output_tokens": OUTPUT}
        reason = self._reason(acts, stop)
        return {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "content": blocks,
            "stop_reason": reason,
            "usage": usage,
        }

    def error(self, kind: str, message: str) -> bytes:
        return self.sse({"type": "error", "error": {"type": kind, "message": message}})

    def _block(self, act: Act, at: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        match act:
            case ("thought", text):
                grown = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text)]
                begun = {"type": "thinking", "thinking": "", "signature": ""}
                return begun, [*grown, {"type": "signature_delta", "signature": "sig"}]
            case ("call", name, arguments):
                begun = {"type": "tool_use", "id": f"toolu_{at}", "name": name, "input": {}}
                return begun, [{"type": "input_json_delta", "partial_json": p} for p in pieces(written(arguments))]
            case (_, text):
                return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(text)]
        raise AssertionError(act)

    def _reason(self, acts: Sequence[Act], stop: str) -> str:
        if any(act[0] == "refusal" for act in acts):
            return "refusal"
        ended = "tool_use" if any(act[0] == "call" for act in acts) else "end_turn"
        return {"length": "max_tokens", "filter": "refusal"}.get(stop, ended)


VOICES: dict[str, Voice] = {voice.name: voice for voice in (ResponsesVoice(), ChatVoice(), MessagesVoice())}


def pieces(text: str) -> list[str]:
    """A text in pieces of three characters."""
    return [text[start : start + 3] for start in range(0, len(text), 3)]


def written(arguments: Any) -> str:
    """Arguments as the text that a model writes."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


@dataclass(slots=True)
class _Step:
    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    is_cut: bool = False


class ModelService:
    """Serves one API inside `async with`; any other path is a 404, as of a service that does not have it.

    Each request takes the next step; `hanging` is set when one hangs, `abandoned` when its caller leaves.
    """

    def __init__(self, voice: Voice, *, piece_bytes: int = 4096) -> None:
        self.voice = voice
        self.asked: list[Asked] = []
        self.refused: list[str] = []
        self.base_url = ""
        self.hanging = asyncio.Event()
        self.abandoned = asyncio.Event()
        self._piece_bytes = piece_bytes
        self._steps: deque[_Step | None] = deque()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/v1/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def say(self, *acts: Act, stop: str = "end") -> Self:
        """Answer with these acts."""
        return self.raw(self.voice.stream(acts, stop=stop), whole=self.voice.whole(acts, stop=stop))

    def raw(self, stream: bytes, *, whole: Any = None, cut: bool = False) -> Self:
        """Answer with these bytes as a stream, `whole` for who asked for none. With `cut`, the connection ends after them."""
        self._steps.append(_Step(200, "text/event-stream", stream, {"_whole": json.dumps(whole)}, is_cut=cut))
        return self

    def plain(self, value: Any, *, status: int = 200, content_type: str = "application/json", **headers: str) -> Self:
        """Answer with this body, whatever was asked for."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._steps.append(_Step(status, content_type, body, headers))
        return self

    def hang(self) -> Self:
        """Never answer."""
        self._steps.append(None)
        return self

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path == "models":
            return web.json_response({"data": [{"id": "m"}]})
        if path != self.voice.path:
            self.refused.append(path)
            return web.json_response({"detail": "Not Found"}, status=404)
        body = json.loads(await request.read())
        self.asked.append(Asked(path, dict(request.headers), body))
        if not self._steps:
            return web.json_response({"error": {"message": "the script has ended", "type": "script"}}, status=400)
        return await self._play(request, body, self._steps.popleft())

    async def _play(self, request: web.Request, body: dict[str, Any], step: _Step | None) -> web.StreamResponse:
        if step is None:
            self.hanging.set()
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                self.abandoned.set()
                raise
            raise AssertionError
        whole = step.headers.pop("_whole", None)
        if whole is not None and body.get("stream") is not True:
            return web.Response(body=whole.encode(), content_type="application/json")
        if step.content_type != "text/event-stream":
            return web.Response(
                status=step.status, body=step.body, content_type=step.content_type, headers=step.headers
            )
        response = web.StreamResponse(headers={"Content-Type": step.content_type})
        await response.prepare(request)
        for start in range(0, len(step.body), self._piece_bytes):
            await response.write(step.body[start : start + self._piece_bytes])
        if step.is_cut and request.transport is not None:
            request.transport.close()
        else:
            await response.write_eof()
        return response
