"""Builds an answer of OpenAI's Responses API, event by event.

`ResponseBuilder` returns the events of each step in the order that the official client expects, numbered without gaps, and
keeps the body that the last event and a non-streamed answer contain. Providers that generate answers themselves use it (the
local model, the scripted provider of the tests), and the readers of other APIs, which translate an answer while it arrives.

Invariant: every event of an item lies between the item's `added` and its `done`. Several items may be open at once, since some
providers send the pieces of several tool calls in turns; a method without `at` means the item that was opened last.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event", "ResponseBuilder", "TokenUsage"]

Event = dict[str, Any]


@dataclass(slots=True)
class TokenUsage:
    """Tokens read and written, summed over the generations of one answer.

    `cached_tokens` and `cache_write_tokens` are parts of `input_tokens`: read from a cache, and written to one.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts in the form of the Responses API, which has no word of its own for writes to a cache."""
        written = {"cache_write_tokens": self.cache_write_tokens} if self.cache_write_tokens else {}
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens, **written},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(slots=True)
class ResponseBuilder:
    """Builds one answer: every step returns its events, and `body` is the answer so far.

    An item is opened, grown and closed: text_begin, text_delta…, text_end; and so for refusals, reasoning and calls.
    """

    model: str
    request: Mapping[str, Any] = field(default_factory=dict)
    usage: TokenUsage = field(default_factory=TokenUsage)
    body: dict[str, Any] = field(init=False)
    _sequence: int = 0
    _pieces: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.body = {
            "id": f"resp_{secrets.token_hex(16)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "usage": None,
            **_echo(self.request),
        }

    @property
    def last(self) -> int:
        """The index of the item that was opened last."""
        return len(self.body["output"]) - 1

    def begin(self) -> list[Event]:
        """Return the first events."""
        return [
            self._event("response.created", response=self._copy()),
            self._event("response.in_progress", response=self._copy()),
        ]

    def text_begin(self) -> list[Event]:
        """Open an assistant message."""
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [self._open_message(), self._on_item("response.content_part.added", content_index=0, part=part)]

    def text_delta(self, piece: str, at: int | None = None) -> list[Event]:
        """Add to the message's text."""
        self._grow(piece, at)
        return [self._on_item("response.output_text.delta", at, content_index=0, delta=piece, logprobs=[])]

    def text_end(self, at: int | None = None, annotations: list[Any] | None = None) -> list[Event]:
        """Close the message."""
        text = self._text(at)
        part = {"type": "output_text", "text": text, "annotations": annotations or [], "logprobs": []}
        return [
            self._on_item("response.output_text.done", at, content_index=0, text=text, logprobs=[]),
            self._on_item("response.content_part.done", at, content_index=0, part=part),
            self._close(at, content=[part]),
        ]

    def refusal(self, reason: str) -> list[Event]:
        """Add a message that declines to answer."""
        return [*self.refusal_begin(), *self.refusal_delta(reason), *self.refusal_end()]

    def refusal_begin(self) -> list[Event]:
        """Open a message that declines to answer."""
        part = {"type": "refusal", "refusal": ""}
        return [self._open_message(), self._on_item("response.content_part.added", content_index=0, part=part)]

    def refusal_delta(self, piece: str, at: int | None = None) -> list[Event]:
        """Add to the reason."""
        self._grow(piece, at)
        return [self._on_item("response.refusal.delta", at, content_index=0, delta=piece)]

    def refusal_end(self, at: int | None = None) -> list[Event]:
        """Close the message."""
        part = {"type": "refusal", "refusal": self._text(at)}
        return [
            self._on_item("response.refusal.done", at, content_index=0, refusal=part["refusal"]),
            self._on_item("response.content_part.done", at, content_index=0, part=part),
            self._close(at, content=[part]),
        ]

    def reasoning_begin(self, prefix: str = "rs") -> list[Event]:
        """Open a reasoning item. `prefix` begins its id, which tells where it came from."""
        item = {"id": f"{prefix}_{secrets.token_hex(12)}", "type": "reasoning", "status": "in_progress", "summary": []}
        part = {"type": "summary_text", "text": ""}
        return [self._open(item), self._on_item("response.reasoning_summary_part.added", summary_index=0, part=part)]

    def reasoning_delta(self, piece: str, at: int | None = None) -> list[Event]:
        """Add to what the model thought."""
        self._grow(piece, at)
        return [self._on_item("response.reasoning_summary_text.delta", at, summary_index=0, delta=piece)]

    def reasoning_end(self, at: int | None = None, **fields: Any) -> list[Event]:
        """Close the reasoning item; `fields` are added to it, such as `encrypted_content`."""
        text = self._text(at)
        part = {"type": "summary_text", "text": text}
        return [
            self._on_item("response.reasoning_summary_text.done", at, summary_index=0, text=text),
            self._on_item("response.reasoning_summary_part.done", at, summary_index=0, part=part),
            self._close(at, summary=[part] if text else [], **fields),
        ]

    def call_begin(self, name: str, call_id: str | None = None, **fields: Any) -> list[Event]:
        """Open a call of the tool `name`; without a `call_id` it gets one. `fields` are added to the item."""
        call_id = call_id or f"call_{secrets.token_hex(12)}"
        item = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "status": "in_progress"}
        return [self._open({**item, "call_id": call_id, "name": name, "arguments": "", **fields})]

    def call_delta(self, piece: str, at: int | None = None) -> list[Event]:
        """Add to the JSON text of the call's arguments."""
        self._grow(piece, at)
        return [self._on_item("response.function_call_arguments.delta", at, delta=piece)]

    def call_end(self, at: int | None = None) -> list[Event]:
        """Close the call."""
        arguments = self._text(at)
        name = self._item(at)["name"]
        done = self._on_item("response.function_call_arguments.done", at, name=name, arguments=arguments)
        return [done, self._close(at, arguments=arguments)]

    def hosted_call(self, kind: str, item_id: str) -> list[Event]:
        """Add a call of a tool that the provider runs itself, such as `web_search_call`."""
        item = {"id": item_id, "type": kind, "status": "in_progress"}
        return [self._open(item), self._close(None)]

    def complete(self) -> list[Event]:
        """Return the last event of a complete answer."""
        return [self._last_event("completed")]

    def incomplete(self, reason: str) -> list[Event]:
        """Return the last event of an answer that stops before its end, such as `max_output_tokens`."""
        return [self._last_event("incomplete", incomplete_details={"reason": reason})]

    def fail(self, message: str, code: str = "server_error") -> list[Event]:
        """Return the last event of an answer that failed."""
        return [self._last_event("failed", error={"code": code, "message": message})]

    def _open_message(self) -> Event:
        item = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "status": "in_progress", "role": "assistant"}
        return self._open({**item, "content": []})

    def _open(self, item: dict[str, Any]) -> Event:
        self.body["output"].append(item)
        self._pieces[self.last] = []
        return self._event("response.output_item.added", output_index=self.last, item=dict(item))

    def _close(self, at: int | None, **fields: Any) -> Event:
        item = self._item(at)
        item |= {"status": "completed", **fields}
        return self._event("response.output_item.done", output_index=self._at(at), item=dict(item))

    def _grow(self, piece: str, at: int | None) -> None:
        self._pieces[self._at(at)].append(piece)

    def _text(self, at: int | None) -> str:
        return "".join(self._pieces.pop(self._at(at), []))

    def _on_item(self, type: str, at: int | None = None, **fields: Any) -> Event:
        return self._event(type, item_id=self._item(at)["id"], output_index=self._at(at), **fields)

    def _last_event(self, status: str, **fields: Any) -> Event:
        self.body |= {"status": status, "usage": self.usage.as_json(), **fields}
        return self._event(f"response.{status}", response=self._copy())

    def _event(self, type: str, **fields: Any) -> Event:
        event = {"type": type, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _at(self, at: int | None) -> int:
        return self.last if at is None else at

    def _item(self, at: int | None) -> dict[str, Any]:
        item: dict[str, Any] = self.body["output"][self._at(at)]
        return item

    def _copy(self) -> dict[str, Any]:
        return {**self.body, "output": [dict(item) for item in self.body["output"]]}


def _echo(request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": request.get("metadata") or {},
        "parallel_tool_calls": bool(request.get("parallel_tool_calls", True)),
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": request.get("temperature"),
        "text": request.get("text") or {"format": {"type": "text"}},
        "tool_choice": request.get("tool_choice") or "auto",
        "tools": request.get("tools") or [],
        "top_p": request.get("top_p"),
        "truncation": "disabled",
    }
