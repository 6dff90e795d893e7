"""One client of `ScriptedRealtime`: what the service does with the events of a session, and what it keeps of it.

The order of events is the service's: a turn of the caller is committed, added, answered, and transcribed at some time of that.
An answer is a task, so that speech can cancel it. Everything is noted in `RealtimeTurns` before it has an effect.
"""

import asyncio
import base64
import contextlib
import itertools
import json
from array import array
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

__all__ = ["RealtimeScript", "RealtimeTurns"]

_RATE = 24_000
_BYTES_PER_MS = _RATE * 2 // 1000
_LOUD = 1_000  # of 32,768
_CHUNK_MS = 100
Json = dict[str, Any]


@dataclass(slots=True)
class RealtimeTurns:
    """One connection: the events received from the client and sent to it, and the conversation's items by their ids."""

    query: dict[str, str]
    authorization: str = field(repr=False)
    received: list[Json] = field(default_factory=list, repr=False)
    sent: list[Json] = field(default_factory=list, repr=False)
    items: dict[str, Json] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)
    audio_ms: float = 0.0
    close_code: int | None = None

    def types(self) -> list[str]:
        """The types of the events received, without sound."""
        return [str(event.get("type")) for event in self.received if event.get("type") != "input_audio_buffer.append"]

    def said(self) -> list[tuple[str, str]]:
        """The conversation as (role or kind of item, text)."""
        return [(str(item.get("role") or item.get("type")), _text(item)) for item in self.items.values()]


@dataclass(slots=True)
class RealtimeScript:
    """What connections share: the steps of the script, what the turns of the caller are transcribed as, and whether to read."""

    hears: deque[str | None]
    silence_ms: float
    otherwise: tuple[str, float] | None
    steps: "deque[Callable[[RealtimeConnection], Awaitable[None]]]" = field(default_factory=deque)
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self) -> None:
        """Wake those that wait for events."""
        async with self.changed:
            self.changed.notify_all()

    def next_step(self) -> "Callable[[RealtimeConnection], Awaitable[None]] | None":
        """Take the next step of the script."""
        if self.steps:
            return self.steps.popleft()
        if self.otherwise is not None:
            text, ms = self.otherwise
            return lambda connection: connection.say(text, ms, None)
        return None

    def next_words(self) -> str | None:
        """What the present turn of the caller is transcribed as; None for one that is not."""
        return self.hears.popleft() if self.hears else "(something)"


class RealtimeConnection:
    """One client."""

    def __init__(
        self,
        script: RealtimeScript,
        socket: web.WebSocketResponse,
        request: web.Request,
        turns: RealtimeTurns,
        number: int,
    ) -> None:
        self._script = script
        self._socket = socket
        self._request = request
        self._turns = turns
        self._numbers = itertools.count(1)
        self._prefix = number
        self._is_speaking = False
        self._quiet_ms = 0.0
        self._spoken_ms: dict[str, float] = {}
        self._response: str | None = None
        self._answering: asyncio.Task[None] | None = None

    async def run(self) -> None:
        await self.emit("session.created", session={"type": "realtime", "id": f"sess_{self._prefix}"})
        while True:
            await self._script.reads.wait()
            message = await self._socket.receive()
            if message.type is not WSMsgType.TEXT:
                return
            event = json.loads(message.data)
            self._turns.received.append(event)
            await self._take(event)
            await self._script.note()

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    def stop(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def emit(self, type: str, **members: Any) -> None:
        event = {"type": type, "event_id": f"event_{next(self._numbers)}", **members}
        self._turns.sent.append(event if type != "response.output_audio.delta" else {**event, "delta": "…"})
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._socket.send_str(json.dumps(event))

    async def error(self, code: str, message: str, event_id: str | None = None) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": None, "event_id": event_id}
        await self.emit("error", error=error)

    async def _take(self, event: Json) -> None:
        match event.get("type"):
            case "session.update":
                await self._update(event)
            case "input_audio_buffer.append":
                await self._hear(base64.b64decode(event["audio"]))
            case "conversation.item.create":
                await self._create(event)
            case "conversation.item.truncate":
                await self._truncate(event)
            case "conversation.item.delete":
                self._turns.items.pop(event["item_id"], None)
                await self.emit("conversation.item.deleted", item_id=event["item_id"])
            case "response.create":
                await self._answer(event.get("event_id"))
            case "response.cancel":
                await self._cancel("client_cancelled")
            case other:
                await self.error("unknown_event", f"unknown event {other!r}", event.get("event_id"))

    async def _update(self, event: Json) -> None:
        session = event.get("session", {})
        if session.get("type") != "realtime":
            await self.error("missing_required_parameter", "session.type", event.get("event_id"))
            return
        self._turns.settings |= session
        await self.emit("session.updated", session=self._turns.settings)

    async def _hear(self, pcm: bytes) -> None:
        ms = len(pcm) / _BYTES_PER_MS
        self._turns.audio_ms += ms
        is_loud = max(map(abs, array("h", pcm)), default=0) > _LOUD
        self._quiet_ms = 0.0 if is_loud else self._quiet_ms + ms
        if is_loud and not self._is_speaking:
            self._is_speaking = True
            self._item = f"user_{self._prefix}_{next(self._numbers)}"
            await self.emit(
                "input_audio_buffer.speech_started", item_id=self._item, audio_start_ms=int(self._turns.audio_ms)
            )
            await self._cancel("turn_detected")
        elif self._is_speaking and self._quiet_ms >= self._script.silence_ms:
            self._is_speaking = False
            await self._end_turn()

    async def _end_turn(self) -> None:
        item_id, words = self._item, self._script.next_words()
        await self.emit("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=int(self._turns.audio_ms))
        await self.emit("input_audio_buffer.committed", item_id=item_id)
        part = {"type": "input_audio", "transcript": words}
        await self._add({"id": item_id, "type": "message", "role": "user", "content": [part]})
        await self._answer(None)
        if words is None:
            return
        await self.emit(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript=words,
            usage={"type": "tokens", "input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
        )

    async def _add(self, item: Json) -> None:
        self._turns.items[item["id"]] = item
        await self.emit("conversation.item.added", item=item)
        await self.emit("conversation.item.done", item=item)

    async def _create(self, event: Json) -> None:
        item = dict(event["item"])
        item.setdefault("id", f"item_{next(self._numbers)}")
        calls = {known.get("call_id") for known in self._turns.items.values() if known["type"] == "function_call"}
        if item["type"] == "function_call_output" and item["call_id"] not in calls:
            await self.error("invalid_value", f"no call {item['call_id']!r}", event.get("event_id"))
            return
        if item.get("role") == "assistant" and any(part["type"] != "output_text" for part in item["content"]):
            await self.error("invalid_value", "assistant audio cannot be created", event.get("event_id"))
            return
        await self._add(item)

    async def _truncate(self, event: Json) -> None:
        item, ms = self._turns.items.get(event["item_id"]), event["audio_end_ms"]
        if item is None or ms > self._spoken_ms.get(event["item_id"], 0.0):
            await self.error("invalid_value", "audio_end_ms is past the audio", event.get("event_id"))
            return
        item["content"] = [{"type": "output_audio", "audio_end_ms": ms}]
        await self.emit("conversation.item.truncated", item_id=event["item_id"], content_index=0, audio_end_ms=ms)

    async def _answer(self, event_id: str | None) -> None:
        if self._response is not None:
            text = "Conversation already has an active response"
            await self.error("conversation_already_has_active_response", text, event_id)
            return
        step = self._script.next_step()
        if step is None:
            return
        self._response = f"resp_{self._prefix}_{next(self._numbers)}"
        await self.emit("response.created", response={"id": self._response, "status": "in_progress"})
        self._answering = asyncio.get_running_loop().create_task(self._play(step))

    async def _play(self, step: Callable[["RealtimeConnection"], Awaitable[None]]) -> None:
        await step(self)

    async def _cancel(self, reason: str) -> None:
        if self._response is None:
            return
        if self._answering is not None:
            self._answering.cancel()
        await self.done("cancelled", {"type": "cancelled", "reason": reason})

    async def done(self, status: str, details: Json | None = None) -> None:
        response_id, self._response = self._response, None
        usage = {
            "input_tokens": 11,
            "output_tokens": 7,
            "total_tokens": 18,
            "input_token_details": {"audio_tokens": 8, "text_tokens": 3, "cached_tokens": 4},
            "output_token_details": {"audio_tokens": 6, "text_tokens": 1},
        }
        response = {"id": response_id, "status": status, "status_details": details, "usage": usage}
        await self.emit("response.done", response=response)

    async def say(self, text: str, ms: float, hold: asyncio.Event | None) -> None:
        item_id, place = await self._begin_item({"type": "message", "role": "assistant", "content": []})
        words, chunks = text.split(" "), max(1, round(ms / _CHUNK_MS))
        self._turns.items[item_id]["content"] = [{"type": "output_audio", "transcript": text}]
        for number in range(chunks):
            first, last = len(words) * number // chunks, len(words) * (number + 1) // chunks
            if part := " ".join(words[first:last]):
                delta = part if number == 0 else f" {part}"
                await self.emit("response.output_audio_transcript.delta", **place, delta=delta)
            length = min(_CHUNK_MS, ms - number * _CHUNK_MS)
            self._spoken_ms[item_id] = self._spoken_ms.get(item_id, 0.0) + length
            await self.emit("response.output_audio.delta", **place, delta=_tone(length, number))
            if number == 0 and hold is not None:
                await hold.wait()
        await self.emit("response.output_audio.done", **place)
        await self.emit("response.output_audio_transcript.done", **place, transcript=text)
        await self.emit("response.output_item.done", response_id=self._response, item=self._turns.items[item_id])
        await self.done("completed")

    async def call(self, *calls: tuple[str, Json]) -> None:
        for name, arguments in calls:
            call_id, text = f"call_{self._prefix}_{next(self._numbers)}", json.dumps(arguments)
            item = {"type": "function_call", "name": name, "call_id": call_id, "arguments": ""}
            item_id, place = await self._begin_item(item)
            self._turns.items[item_id]["arguments"] = text
            await self.emit(
                "response.function_call_arguments.done",
                response_id=self._response,
                item_id=item_id,
                output_index=place["output_index"],
                call_id=call_id,
                arguments=text,
            )
            await self.emit("response.output_item.done", response_id=self._response, item=self._turns.items[item_id])
        await self.done("completed")

    async def _begin_item(self, item: Json) -> tuple[str, Json]:
        item_id = f"item_{self._prefix}_{next(self._numbers)}"
        self._turns.items[item_id] = {"id": item_id, **item}
        await self.emit("response.output_item.added", response_id=self._response, item={"id": item_id, **item})
        await self.emit("conversation.item.added", item={"id": item_id, **item})
        place = {"response_id": self._response, "item_id": item_id, "output_index": 0, "content_index": 0}
        return item_id, place

    async def fail(self, code: str, message: str) -> None:
        error = {"type": code, "code": code, "message": message}
        await self.done("failed", {"type": "failed", "error": error})

    async def lose(self) -> None:
        self.abort()

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def send_raw(self, *texts: str) -> None:
        for text in texts:
            await self._socket.send_str(text)
        await self.done("completed")


def _tone(ms: float, number: int) -> str:
    """Sound of this length as base64: loud enough to be told from silence, and different in each part."""
    value = 4_000 + 100 * (number % 50)
    samples = round(ms * _RATE / 1000)
    period = [value] * 20 + [-value] * 20  # 600 Hz: no carrier's rate filters it out
    return base64.b64encode(array("h", period * (samples // 40 + 1))[:samples].tobytes()).decode()


def _text(item: Json) -> str:
    if item.get("type") == "function_call":
        return f"{item['name']}({item['arguments']})"
    if item.get("type") == "function_call_output":
        return str(item["output"])
    parts = item.get("content") or []
    return " ".join(str(part.get("transcript") or part.get("text") or "") for part in parts)
