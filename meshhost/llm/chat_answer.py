"""Reads an answer of the chat completions API as events of the Responses API.

Services that claim this API differ from it, and all of these are read: pieces of several tool calls that come in turns, calls
without an id or an index, an index that several calls share, arguments as an object, the name of a call in each of its pieces,
contents that are lists, reasoning under three names, usage after the last choice or in every chunk, a whole answer as the only
event of a stream, a stream that ends without `[DONE]`.

A stream is complete when it gave a reason to stop or said `[DONE]`. One that ends without both was cut.
"""

import json
from collections.abc import Mapping
from typing import Any

from meshhost.llm.answer import AnswerReader, count_of
from meshhost.llm.builder import Event
from meshhost.llm.chat_request import CHAT_THOUGHT

__all__ = ["ChatAnswerReader"]

_INCOMPLETE = {"length": "max_output_tokens", "max_tokens": "max_output_tokens", "content_filter": "content_filter"}


class ChatAnswerReader(AnswerReader):
    """Translates one answer to `request`, which is the caller's, in the form of the Responses API."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__(request, thought_prefix=CHAT_THOUGHT)
        self._reason: str | None = None
        self._is_done = False
        self._ids: dict[object, str] = {}  # the id that came with each call, by its key
        self._last: object = None  # the key of the call that came last
        self._taken: set[str] = set()
        self._unnamed: dict[
            object, tuple[str | None, str]
        ] = {}  # id and arguments of calls whose name did not come yet

    def _take(self, value: dict[str, Any]) -> list[Event]:
        if value.get("error"):
            return self._fail(value["error"])
        if value.get("object") == "error":
            return self._fail(value)
        if isinstance(usage := value.get("usage"), dict):
            self._count(usage)
        choices = value.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        found = choice.get("delta") or choice.get("message") or {}
        events = self._delta(found) if isinstance(found, dict) else []
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self._reason = reason
        return events

    def _whole(self, body: Mapping[str, Any]) -> list[Event]:
        events = self._take(dict(body))
        if not self._is_over:
            self._is_done = True
            events += self._finish()
        return events

    def _done(self) -> list[Event]:
        self._is_done = True
        return self._finish()

    def _finish(self) -> list[Event]:
        if self._reason is None and not self._is_done:
            return []
        if self._reason == "error":
            return self._fail({"code": "server_error", "message": "the model failed"})
        events = [event for key in list(self._unnamed) for event in self._named(key, "unnamed")]
        events += self.items.end()
        why = _INCOMPLETE.get(self._reason or "")
        return self._end_with([*events, *(self.out.complete() if why is None else self.out.incomplete(why))])

    def _delta(self, delta: Mapping[str, Any]) -> list[Event]:
        events: list[Event] = []
        for name in ("reasoning_content", "reasoning", "thinking"):
            if isinstance(thought := delta.get(name), str) and thought:
                events += self.items.grow("thought", thought)
                break
        events += self._content(delta.get("content"))
        if isinstance(refusal := delta.get("refusal"), str):
            events += self.items.grow("refusal", refusal)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else [calls]:
            if isinstance(call, dict):
                events += self._call(call)
        if isinstance(legacy := delta.get("function_call"), dict):
            events += self._call({"index": "legacy", "function": legacy})
        return events

    def _content(self, content: Any) -> list[Event]:
        if isinstance(content, str):
            return self.items.grow("text", content)
        events: list[Event] = []
        for part in content if isinstance(content, list) else []:
            if isinstance(part, str):
                events += self.items.grow("text", part)
            elif isinstance(part, dict) and isinstance(part.get("text"), str):
                events += self.items.grow("text", part["text"])
            elif isinstance(part, dict) and part.get("thinking"):
                thought = part["thinking"]
                texts = [each.get("text") for each in thought] if isinstance(thought, list) else [thought]
                events += self.items.grow("thought", "".join(text for text in texts if isinstance(text, str)))
        return events

    def _call(self, call: Mapping[str, Any]) -> list[Event]:
        given = call.get("function")
        function: Mapping[str, Any] = given if isinstance(given, Mapping) else call
        name = function.get("name") if isinstance(function.get("name"), str) else ""
        call_id = str(call["id"]) if call.get("id") else None
        key = self._key(call, call_id, str(name))
        self._last = key
        arguments = function.get("arguments")
        piece = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments is not None else ""
        if key in self._unnamed or key not in self._ids:
            known, before = self._unnamed.pop(key, (None, ""))
            self._ids[key] = known or call_id or ""
            self._unnamed[key] = (known or call_id, before + piece)
            extra = {each: call[each] for each in ("extra_content",) if call.get(each) is not None}
            return self._named(key, str(name), **extra) if name else []
        return self.items.grow_call(key, piece)

    def _named(self, key: object, name: str, **extra: Any) -> list[Event]:
        """The name of a call is known: it can begin."""
        call_id, arguments = self._unnamed.pop(key)
        if call_id in self._taken:
            call_id = None  # two calls of one id: answers could not be told apart
        if call_id:
            self._taken.add(call_id)
        return [*self.items.begin_call(key, name, call_id, **extra), *self.items.grow_call(key, arguments)]

    def _key(self, call: Mapping[str, Any], call_id: str | None, name: str) -> object:
        """Which call a piece belongs to: by its index, by its id, or to the last one unless it has a name."""
        index = call.get("index")
        if not isinstance(index, int | str):
            if call_id is not None and call_id in self._ids.values():
                return next(key for key, known in self._ids.items() if known == call_id)
            return self._last if not name and self._last is not None else ("new", len(self._ids))
        known = self._ids.get(index)
        if known and call_id and call_id != known and name:  # another call under the same index
            return next((key for key, each in self._ids.items() if each == call_id), ("new", len(self._ids)))
        if known and not call_id and self._last != index and isinstance(self._last, tuple):
            return self._last  # goes on with that other call
        return index

    def _count(self, usage: Mapping[str, Any]) -> None:
        total = self.out.usage
        total.input_tokens = count_of(usage, "prompt_tokens", "input_tokens") or total.input_tokens
        total.output_tokens = count_of(usage, "completion_tokens", "output_tokens") or total.output_tokens
        if isinstance(details := usage.get("prompt_tokens_details"), dict):
            total.cached_tokens = count_of(details, "cached_tokens") or total.cached_tokens
            total.cache_write_tokens = count_of(details, "cache_write_tokens") or total.cache_write_tokens
        if isinstance(details := usage.get("completion_tokens_details"), dict):
            total.reasoning_tokens = count_of(details, "reasoning_tokens") or total.reasoning_tokens
