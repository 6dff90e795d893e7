"""Reads an answer of the Responses API for callers that speak another one: the events are passed on, in the shape that they
should have.

Services that claim this API differ from it, too: contents that are texts, items without a type, parts that are null. The
writers of callers' forms rely on the shape, so that it is set right here.
"""

import json
import secrets
from collections.abc import Mapping
from typing import Any

from meshhost.llm.answer import AnswerReader
from meshhost.llm.builder import Event

__all__ = ["ResponsesAnswerReader"]

_LAST = ("response.completed", "response.incomplete", "response.failed")


class ResponsesAnswerReader(AnswerReader):
    """Passes on the events of one answer, up to the last one."""

    def _begin(self) -> list[Event]:
        self._is_begun = True
        return []  # the answer has a beginning of its own

    def _take(self, value: dict[str, Any]) -> list[Event]:
        kind = value.get("type")
        if kind == "error" or (kind not in _LAST and value.get("error")):
            return self._fail(value.get("error") or value)
        if kind in _LAST and isinstance(response := value.get("response"), dict):
            self.out.body = {**response, "output": _items(response.get("output"))}
            return self._end_with([{**value, "response": self.out.body}])
        if kind in ("response.output_item.added", "response.output_item.done"):
            return [{**value, "item": item} for item in _items(value.get("item"))]
        if kind == "response.created" and not isinstance(value.get("response"), dict):
            return []
        return [value] if isinstance(value.get("delta", ""), str) else []

    def _whole(self, body: Mapping[str, Any]) -> list[Event]:
        status = body.get("status") if body.get("status") in ("incomplete", "failed") else "completed"
        items = _items(body.get("output"))
        self.out.body = {**body, "status": status, "output": items}
        events: list[Event] = [{"type": "response.created", "response": {**body, "output": []}}]
        for index, item in enumerate(items):
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        return self._end_with([*events, {"type": f"response.{status}", "response": self.out.body}])

    def _finish(self) -> list[Event]:
        return []


def _items(output: object) -> list[dict[str, Any]]:
    given = output if isinstance(output, list) else [output]
    return [item for each in given if (item := _item(each)) is not None]


def _item(given: object) -> dict[str, Any] | None:
    if isinstance(given, str):
        return _message({}, given) if given else None
    if not isinstance(given, dict):
        return None
    kind = given.get("type")
    if kind == "message" or (kind is None and given.get("role") == "assistant"):
        return _message(given, given.get("content"))
    if kind == "function_call":
        arguments = given.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
        call_id = given.get("call_id") or given.get("id") or f"call_{secrets.token_hex(12)}"
        return {**given, "call_id": str(call_id), "name": str(given.get("name") or "unnamed"), "arguments": text}
    if kind == "reasoning":
        summary = given.get("summary")
        parts = [part for part in summary if isinstance(part, dict)] if isinstance(summary, list) else []
        return {**given, "summary": parts}
    return given if kind is not None else None


def _message(item: dict[str, Any], content: object) -> dict[str, Any]:
    given = content if isinstance(content, list) else [content]
    read = [{"type": "output_text", "text": part} if isinstance(part, str) else part for part in given]
    parts: list[dict[str, Any]] = [part for part in read if isinstance(part, dict)]
    parts = [{**part, "type": "output_text"} if part.get("type") in (None, "text") else part for part in parts]
    return {**item, "type": "message", "role": "assistant", "content": parts}
