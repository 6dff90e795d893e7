"""Reads a request of the chat completions API as one of the Responses API, and writes the answer in the caller's form.

For callers of the chat API whose provider speaks another one: the local model, Anthropic.
"""

from collections.abc import Mapping
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.llm.builder import Event
from meshhost.llm.conversation import entries_of, items_of
from meshhost.llm.sse import DONE, encode_event

__all__ = ["ChatWriter", "read_chat"]

_SAME = (
    "model",
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "stream",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
)


def read_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request in the form of the Responses API. Raises InvalidRequestError."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise InvalidRequestError("messages", "expected a list of messages")
    if body.get("n") not in (None, 1):
        raise InvalidRequestError("n", "this provider gives one answer")
    read: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    read["input"] = items_of(entries_of(messages))
    read["store"] = False
    if isinstance(limit := body.get("max_completion_tokens") or body.get("max_tokens"), int):
        read["max_output_tokens"] = limit
    if isinstance(effort := body.get("reasoning_effort"), str):
        read["reasoning"] = {"effort": effort}
    if (tools := body.get("tools")) is not None:
        read["tools"] = [
            _function(tool, f"tools[{n}]") for n, tool in enumerate(tools if isinstance(tools, list) else [tools])
        ]
    if (choice := body.get("tool_choice")) is not None:
        function = choice.get("function") if isinstance(choice, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        read["tool_choice"] = {"type": "function", "name": name} if name else choice
    if isinstance(form := body.get("response_format"), Mapping):
        read["text"] = {"format": _format(form)}
    return read


def _function(tool: Any, where: str) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise InvalidRequestError(where, "expected a function; this provider takes no other tools here")
    return {"type": "function", **function}


def _format(form: Mapping[str, Any]) -> dict[str, Any]:
    schema = form.get("json_schema")
    if form.get("type") == "json_schema" and isinstance(schema, Mapping):
        return {"type": "json_schema", "name": "answer", **schema}
    return {"type": "json_object"} if form.get("type") == "json_object" else {"type": "text"}


class ChatWriter:
    """Writes chunks, or one completion."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        options = request.get("stream_options")
        self._with_usage = isinstance(options, Mapping) and options.get("include_usage") is True
        self._head: dict[str, Any] = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
        self._calls: dict[object, int] = {}  # the number of each call, by its place in the answer
        self._shown: set[object] = set()  # the places of items whose content was written

    def write(self, event: Event) -> bytes:
        """See AnswerWriter."""
        place = event.get("output_index")
        match event.get("type"):
            case "response.created":
                self._head |= _head(event["response"], "chat.completion.chunk")
                return self._chunk({"role": "assistant", "content": ""})
            case "response.output_text.delta":
                self._shown.add(place)
                return self._chunk({"content": event["delta"]})
            case "response.refusal.delta":
                self._shown.add(place)
                return self._chunk({"refusal": event["delta"]})
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._chunk({"reasoning_content": event["delta"]})
            case "response.output_item.added" if event["item"].get("type") == "function_call":
                return self._begin_call(place, event["item"], "")
            case "response.function_call_arguments.delta" if place in self._calls:
                return self._chunk(_piece(self._calls[place], {"arguments": event["delta"]}))
            case "response.output_item.done":
                return self._rest(place, event["item"])
            case "response.completed" | "response.incomplete":
                return self._last(event["response"])
            case "response.failed":
                error = event["response"].get("error") or {"message": "the model failed", "code": "server_error"}
                return encode_event({"error": {"type": error.get("code"), "param": None, **error}})
            case _:
                return b""

    def end(self) -> bytes:
        """See AnswerWriter."""
        return DONE

    def whole(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """See AnswerWriter."""
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        calls: list[dict[str, Any]] = []
        for item in response.get("output") or []:
            match item.get("type"):
                case "message":
                    for name, text in _texts(item):
                        message[name] = (message[name] or "") + text
                case "function_call":
                    function = {"name": item["name"], "arguments": item["arguments"]}
                    calls.append({"id": item["call_id"], "type": "function", "function": function})
                case "reasoning":
                    text = "".join(part.get("text", "") for part in item.get("summary") or [])
                    message["reasoning_content"] = message.get("reasoning_content", "") + text
                case _:
                    pass
        if calls:
            message["tool_calls"] = calls
        reason = _finish_reason(response, has_calls=bool(calls))
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return {**_head(response, "chat.completion"), "choices": [choice], "usage": _usage(response)}

    def _begin_call(self, place: object, item: Mapping[str, Any], arguments: str) -> bytes:
        self._calls[place] = number = len(self._calls)
        function = {"name": item.get("name"), "arguments": arguments}
        return self._chunk(_piece(number, function, id=item.get("call_id"), type="function"))

    def _rest(self, place: object, item: Mapping[str, Any]) -> bytes:
        """What of a finished item was not streamed: all of it, when the answer came as a whole."""
        if item.get("type") == "function_call" and place not in self._calls:
            return self._begin_call(place, item, str(item.get("arguments") or ""))
        if item.get("type") == "message" and place not in self._shown:
            return b"".join(self._chunk({name: text}) for name, text in _texts(item))
        return b""

    def _last(self, response: Mapping[str, Any]) -> bytes:
        written = self._chunk({}, _finish_reason(response, has_calls=bool(self._calls)))
        if self._with_usage:
            written += encode_event({**self._head, "choices": [], "usage": _usage(response)})
        return written

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        return encode_event({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _piece(number: int, function: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": number, **fields, "function": function}]}


def _head(response: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": str(response.get("id") or "").replace("resp_", "chatcmpl-"),
        "object": kind,
        "created": response.get("created_at") or 0,
        "model": response.get("model") or "",
    }


def _texts(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"output_text": ("content", "text"), "refusal": ("refusal", "refusal")}
    parts = [part for part in item.get("content") or [] if part.get("type") in names]
    return [(names[part["type"]][0], str(part.get(names[part["type"]][1]) or "")) for part in parts]


def _finish_reason(response: Mapping[str, Any], *, has_calls: bool) -> str:
    if response.get("status") == "incomplete":
        reason = (response.get("incomplete_details") or {}).get("reason")
        return "content_filter" if reason == "content_filter" else "length"
    return "tool_calls" if has_calls else "stop"


def _usage(response: Mapping[str, Any]) -> dict[str, Any]:
    usage = response.get("usage") or {}
    return {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
        "prompt_tokens_details": usage.get("input_tokens_details") or {},
        "completion_tokens_details": usage.get("output_tokens_details") or {},
    }
