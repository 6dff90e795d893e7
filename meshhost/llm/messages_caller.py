"""Reads a request of Anthropic's Messages API as one of the Responses API, and writes the answer in the caller's form.

For callers of that API whose provider speaks another one. Blocks of an answer follow each other, while items of the Responses
API may be open together: a tool call is written when it is complete.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.llm.builder import Event
from meshhost.llm.conversation import Called, Entry, File, Image, Part, Returned, Said, Text, Thought, items_of
from meshhost.llm.messages_request import HIDDEN_PROOF, PROOF
from meshhost.llm.sse import encode_event

__all__ = ["MessagesWriter", "read_messages"]

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def read_messages(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request in the form of the Responses API. Raises InvalidRequestError."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise InvalidRequestError("messages", "expected a list of messages")
    entries = [entry for n, message in enumerate(messages) for entry in _entries(message, f"messages[{n}]")]
    same = ("model", "temperature", "top_p", "stream")
    read: dict[str, Any] = {name: body[name] for name in same if body.get(name) is not None}
    read |= {"input": items_of(entries), "store": False}
    if system := _system(body.get("system")):
        read["instructions"] = system
    if isinstance(limit := body.get("max_tokens"), int):
        read["max_output_tokens"] = limit
    if isinstance(tools := body.get("tools"), list):
        read["tools"] = [_function(tool, f"tools[{n}]") for n, tool in enumerate(tools)]
    if isinstance(choice := body.get("tool_choice"), Mapping):
        kind = str(choice.get("type"))
        read["tool_choice"] = (
            {"type": "function", "name": choice.get("name")} if kind == "tool" else _CHOICES.get(kind, "auto")
        )
        if choice.get("disable_parallel_tool_use") is True:
            read["parallel_tool_calls"] = False
    if isinstance(config := body.get("output_config"), Mapping):
        if isinstance(config.get("effort"), str):
            read["reasoning"] = {"effort": config["effort"]}
        if isinstance(form := config.get("format"), Mapping):
            schema = {"type": "json_schema", "name": "answer", "schema": form.get("schema"), "strict": True}
            read["text"] = {"format": schema}
    return read


def _system(given: Any) -> str:
    if isinstance(given, list):
        return "\n\n".join(str(block.get("text") or "") for block in given if isinstance(block, Mapping))
    return given if isinstance(given, str) else ""


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or not isinstance(tool.get("input_schema"), Mapping):
        raise InvalidRequestError(where, "expected a tool with an input_schema; this provider takes no other tools")
    return {
        "type": "function",
        "name": tool.get("name"),
        "description": tool.get("description") or "",
        "parameters": tool["input_schema"],
        "strict": False,
    }


def _entries(message: Any, where: str) -> Iterator[Entry]:
    if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
        raise InvalidRequestError(f"{where}.role", "expected user or assistant")
    role, content = message["role"], message.get("content")
    if isinstance(content, str):
        yield Said(role, (Text(content),))
        return
    said: list[Part] = []
    for number, block in enumerate(content if isinstance(content, list) else []):
        if not isinstance(block, Mapping):
            raise InvalidRequestError(f"{where}.content[{number}]", "expected a block")
        entry = _entry(block, f"{where}.content[{number}]")
        if entry is None:
            said.append(_part(block, f"{where}.content[{number}]"))
            continue
        if said:
            yield Said(role, tuple(said))
            said = []
        yield entry
    if said:
        yield Said(role, tuple(said))


def _entry(block: Mapping[str, Any], where: str) -> Entry | None:
    match block.get("type"):
        case "tool_use":
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            return Called(str(block.get("id") or ""), str(block.get("name") or ""), arguments)
        case "tool_result":
            content = block.get("content")
            if isinstance(content, str):
                return Returned(str(block.get("tool_use_id") or ""), (Text(content),))
            parts = [_part(part, f"{where}.content") for part in content or [] if isinstance(part, Mapping)]
            return Returned(str(block.get("tool_use_id") or ""), tuple(parts))
        case "thinking":
            return Thought(str(block.get("thinking") or ""), "rs_messages", PROOF + str(block.get("signature") or ""))
        case "redacted_thinking":
            return Thought("", "rs_messages", HIDDEN_PROOF + str(block.get("data") or ""))
        case _:
            return None


def _part(block: Mapping[str, Any], where: str) -> Part:
    source = block.get("source")
    match block.get("type"):
        case "text":
            return Text(str(block.get("text") or ""))
        case "image" if isinstance(source, Mapping) and (url := _url(source)):
            return Image(url)
        case "document" if isinstance(source, Mapping):
            title = block.get("title") if isinstance(block.get("title"), str) else None
            if source.get("type") == "text":
                return Text(str(source.get("data") or ""))
            if source.get("type") == "url":
                return File(title, url=str(source.get("url")))
            if (url := _url(source)) is not None:
                return File(title or "document.pdf", data=url)
        case _:
            pass
    raise InvalidRequestError(f"{where}.type", f"this provider takes no block of type {str(block.get('type'))[:40]!r}")


def _url(source: Mapping[str, Any]) -> str | None:
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    return str(source["url"]) if source.get("type") == "url" and source.get("url") else None


class MessagesWriter:
    """Writes the events of a message, or one message."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._model = str(request.get("model") or "")
        self._open: tuple[str, object] | None = None  # the kind of the open block, and the item that it shows
        self._number = -1
        self._shown: set[object] = set()
        self._has_calls = False

    def write(self, event: Event) -> bytes:
        """See AnswerWriter."""
        place = event.get("output_index")
        match event.get("type"):
            case "response.created":
                start = {
                    **_head(event["response"], self._model),
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                }
                usage = {"input_tokens": 0, "output_tokens": 0}
                return _event("message_start", message={**start, "usage": usage})
            case "response.output_text.delta" | "response.refusal.delta":
                return self._grow("text", place, {"type": "text_delta", "text": event["delta"]})
            case "response.reasoning_summary_text.delta":
                return self._grow("thinking", place, {"type": "thinking_delta", "thinking": event["delta"]})
            case "response.output_item.done":
                return self._end_item(place, event["item"])
            case "response.completed" | "response.incomplete":
                return self._last(event["response"])
            case "response.failed":
                return _event("error", error=_error(event["response"].get("error")))
            case _:
                return b""

    def end(self) -> bytes:
        """See AnswerWriter."""
        return b""

    def whole(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """See AnswerWriter."""
        blocks = [block for item in response.get("output") or [] for block in _blocks(item)]
        reason = _stop_reason(response, has_calls=any(block["type"] == "tool_use" for block in blocks))
        message = {**_head(response, self._model), "content": blocks, "stop_reason": reason, "stop_sequence": None}
        return {**message, "usage": _usage(response)}

    def _grow(self, kind: str, place: object, delta: dict[str, Any]) -> bytes:
        self._shown.add(place)
        written = b""
        if self._open != (kind, place):
            empty = (
                {"type": "text", "text": ""}
                if kind == "text"
                else {"type": "thinking", "thinking": "", "signature": ""}
            )
            written = self._close() + self._begin(empty)
            self._open = (kind, place)
        return written + _event("content_block_delta", index=self._number, delta=delta)

    def _begin(self, block: dict[str, Any]) -> bytes:
        self._number += 1
        return _event("content_block_start", index=self._number, content_block=block)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event("content_block_stop", index=self._number)

    def _end_item(self, place: object, item: Mapping[str, Any]) -> bytes:
        blocks = _blocks(item)
        if place in self._shown:
            proof = blocks[0].get("signature") if blocks and self._open == ("thinking", place) else None
            delta = {"type": "signature_delta", "signature": proof}
            signed = _event("content_block_delta", index=self._number, delta=delta) if proof else b""
            return signed + (self._close() if self._open is not None and self._open[1] == place else b"")
        return self._close() + b"".join(map(self._block, blocks))

    def _block(self, block: dict[str, Any]) -> bytes:
        """A whole block at once."""
        if block["type"] != "tool_use":
            return self._begin(block) + _event("content_block_stop", index=self._number)
        self._has_calls = True
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        return (
            self._begin({**block, "input": {}})
            + _event("content_block_delta", index=self._number, delta=delta)
            + _event("content_block_stop", index=self._number)
        )

    def _last(self, response: Mapping[str, Any]) -> bytes:
        reason = {"stop_reason": _stop_reason(response, has_calls=self._has_calls), "stop_sequence": None}
        return self._close() + _event("message_delta", delta=reason, usage=_usage(response)) + _event("message_stop")


def _event(kind: str, **fields: Any) -> bytes:
    return encode_event({"type": kind, **fields})


def _head(response: Mapping[str, Any], model: str) -> dict[str, Any]:
    return {
        "id": str(response.get("id") or "").replace("resp_", "msg_"),
        "type": "message",
        "role": "assistant",
        "model": response.get("model") or model,
    }


def _error(error: Any) -> dict[str, Any]:
    found = error if isinstance(error, Mapping) else {}
    return {"type": found.get("code") or "api_error", "message": found.get("message") or "the model failed"}


def _blocks(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    match item.get("type"):
        case "message":
            texts = [str(part.get("text") or part.get("refusal") or "") for part in item.get("content") or []]
            return [{"type": "text", "text": text} for text in texts if text]
        case "function_call":
            try:
                given = json.loads(item.get("arguments") or "{}")
            except (ValueError, RecursionError):
                given = {}
            return [{"type": "tool_use", "id": item.get("call_id"), "name": item.get("name"), "input": given}]
        case "reasoning":
            proof = str(item.get("encrypted_content") or "")
            if proof.startswith(HIDDEN_PROOF):
                return [{"type": "redacted_thinking", "data": proof.removeprefix(HIDDEN_PROOF)}]
            text = "".join(str(part.get("text") or "") for part in item.get("summary") or [])
            return [{"type": "thinking", "thinking": text, "signature": proof.removeprefix(PROOF)}] if text else []
        case _:
            return []


def _stop_reason(response: Mapping[str, Any], *, has_calls: bool) -> str:
    if response.get("status") == "incomplete":
        reason = (response.get("incomplete_details") or {}).get("reason")
        return "refusal" if reason == "content_filter" else "max_tokens"
    return "tool_use" if has_calls else "end_turn"


def _usage(response: Mapping[str, Any]) -> dict[str, Any]:
    usage = response.get("usage") or {}
    details = usage.get("input_tokens_details") or {}
    cached, written = details.get("cached_tokens", 0), details.get("cache_write_tokens", 0)
    return {
        "input_tokens": usage.get("input_tokens", 0) - cached - written,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": usage.get("output_tokens", 0),
    }
