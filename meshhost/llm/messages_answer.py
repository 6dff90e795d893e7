"""Reads an answer of Anthropic's Messages API as events of the Responses API.

A thought becomes a reasoning item whose `encrypted_content` holds the signature, so that a conversation can carry it back
(`messages_request.py`). The arguments of the tool that stands for the answer become a text. Tools that the provider runs are
shown as calls of theirs (`web_search_call`), without what they found.

An answer is complete when it gave a reason to stop; a stream that ends before was cut.
"""

import json
from collections.abc import Mapping
from typing import Any

from meshhost.llm.answer import AnswerReader, count_of, json_object
from meshhost.llm.builder import Event
from meshhost.llm.messages_request import ANSWER_TOOL, HIDDEN_PROOF, PROOF, WRAPPED

__all__ = ["MessagesAnswerReader"]

_INCOMPLETE = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "context_window",
    "pause_turn": "pause_turn",
}
_DECLINED = "the model declined to answer"
_HOSTED = {"web_search": "web_search_call"}


class MessagesAnswerReader(AnswerReader):
    """Translates one answer to `request`, which is the caller's, in the form of the Responses API."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__(request)
        self._reason: str | None = None
        self._blocks: dict[object, str] = {}  # the kinds of the open blocks, by their index
        self._signature: dict[object, str] = {}
        self._answer: list[str] | None = None  # the pieces of the answer, while it is a tool's arguments
        self._is_wrapped = _is_wrapped(request)

    def _take(self, value: dict[str, Any]) -> list[Event]:
        at = value["index"] if isinstance(value.get("index"), int) else None
        match value.get("type"):
            case "message_start" if isinstance(message := value.get("message"), dict):
                self._count(message.get("usage"))
            case "content_block_start" if isinstance(block := value.get("content_block"), dict):
                return self._begin_block(at, block)
            case "content_block_delta" if isinstance(delta := value.get("delta"), dict):
                return self._grow(at, delta)
            case "content_block_stop":
                return self._end_block(at)
            case "message_delta":
                self._count(value.get("usage"))
                self._stop(value.get("delta"))
            case "message_stop":
                self._reason = self._reason or "end_turn"
                return self._finish()
            case "error":
                return self._fail(value.get("error") or value)
            case _:
                return self._fail(value["error"]) if value.get("error") else []
        return []

    def _stop(self, delta: Any) -> None:
        if isinstance(delta, dict) and isinstance(delta.get("stop_reason"), str):
            self._reason = delta["stop_reason"]

    def _whole(self, body: Mapping[str, Any]) -> list[Event]:
        if body.get("type") == "error" or body.get("error"):
            return self._fail(body.get("error") or body)
        self._count(body.get("usage"))
        events: list[Event] = []
        content = body.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for at, block in enumerate(blocks if isinstance(blocks, list) else []):
            if isinstance(block, dict):
                events += [*self._begin_block(at, block), *self._end_block(at)]
        self._reason = str(body.get("stop_reason") or "end_turn")
        return events + self._finish()

    def _finish(self) -> list[Event]:
        if self._reason is None:
            return []
        events = [event for at in list(self._blocks) for event in self._end_block(at)]
        if self._reason == "refusal":
            events += self.items.grow("refusal", _DECLINED)
        events += self.items.end()
        why = _INCOMPLETE.get(self._reason)
        return self._end_with([*events, *(self.out.complete() if why is None else self.out.incomplete(why))])

    def _begin_block(self, at: object, block: Mapping[str, Any]) -> list[Event]:
        if at in self._blocks:  # begun twice: the first one has ended
            return [*self._end_block(at), *self._begin_block(at, block)]
        kind = str(block.get("type"))
        self._blocks[at] = kind
        match kind:
            case "text":
                return self.items.grow("text", str(block.get("text") or ""))
            case "thinking" | "redacted_thinking":
                hidden = HIDDEN_PROOF + str(block.get("data") or "") if kind == "redacted_thinking" else ""
                self._signature[at] = hidden or (PROOF + str(block["signature"]) if block.get("signature") else "")
                return [*self.items.begin_thought(), *self.items.grow("thought", str(block.get("thinking") or ""))]
            case "tool_use" if block.get("name") == ANSWER_TOOL:
                self._blocks[at] = "answer"
                self._answer = [json.dumps(given)] if (given := block.get("input")) else []
                return self.items.end_text()
            case "tool_use":
                call_id = str(block["id"]) if block.get("id") else None
                events = self.items.begin_call(at, str(block.get("name") or "unnamed"), call_id)
                given = block.get("input")
                return events + (self.items.grow_call(at, json.dumps(given)) if given else [])
            case "server_tool_use" if block.get("name") in _HOSTED:
                return [
                    *self.items.end_text(),
                    *self.out.hosted_call(_HOSTED[str(block["name"])], str(block.get("id"))),
                ]
            case _:
                return []

    def _grow(self, at: object, delta: Mapping[str, Any]) -> list[Event]:
        kind = self._blocks.get(at)
        match delta.get("type"):
            case "text_delta":
                return self.items.grow("text", str(delta.get("text") or ""))
            case "thinking_delta" if kind == "thinking":
                return self.items.grow("thought", str(delta.get("thinking") or ""))
            case "signature_delta" if kind == "thinking":
                self._signature[at] = (self._signature[at] or PROOF) + str(delta.get("signature") or "")
            case "input_json_delta" if kind == "tool_use":
                return self.items.grow_call(at, str(delta.get("partial_json") or ""))
            case "input_json_delta" if kind == "answer" and self._answer is not None:
                self._answer.append(str(delta.get("partial_json") or ""))
        return []

    def _end_block(self, at: object) -> list[Event]:
        match self._blocks.pop(at, None):
            case "tool_use":
                return self.items.end_call(at)
            case "answer":
                pieces, self._answer = self._answer or [], None
                return [*self.items.grow("text", _unwrapped("".join(pieces), self._is_wrapped)), *self.items.end_text()]
            case "thinking" | "redacted_thinking":
                proof = self._signature.pop(at, "")
                return self.items.end_text(**({"encrypted_content": proof} if proof else {}))
            case _:
                return []

    def _count(self, usage: Any) -> None:
        """Take the counts so far: the input's come first, the output's at the end, and some services repeat all."""
        if not isinstance(usage, dict):
            return
        total = self.out.usage
        cached, written = count_of(usage, "cache_read_input_tokens"), count_of(usage, "cache_creation_input_tokens")
        read = count_of(usage, "input_tokens") + cached + written
        total.input_tokens = max(total.input_tokens, read)
        total.cached_tokens = max(total.cached_tokens, cached)
        total.cache_write_tokens = max(total.cache_write_tokens, written)
        total.output_tokens = max(total.output_tokens, count_of(usage, "output_tokens"))


def _is_wrapped(request: Mapping[str, Any]) -> bool:
    text = request.get("text")
    found = text.get("format") if isinstance(text, Mapping) else None
    schema = found.get("schema") if isinstance(found, Mapping) else None
    return isinstance(schema, Mapping) and schema.get("type") != "object"


def _unwrapped(text: str, is_wrapped: bool) -> str:
    value = json_object(text.encode()) if is_wrapped else None
    return text if value is None or WRAPPED not in value else json.dumps(value[WRAPPED], ensure_ascii=False)
