"""Writes a request of the Responses API as one of the chat completions API.

Services that offer only this API differ in what they accept, so that only members are sent that the request needs: the system
message is one and first, contents that are text only are strings, `strict` is sent only when it is true. A stream is asked for
with its usage. What a model thought is sent back within the turn in progress, and only to the kind of service that it came from
(`rs_chat`): DeepSeek's refuses the next call without it, others refuse it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.llm.conversation import Audio, Called, File, Image, Part, Returned, Said, Text, Thought, text_of
from meshhost.llm.request import AnswerSchema, Function, Request, read_request

__all__ = ["CHAT_THOUGHT", "chat_request"]

CHAT_THOUGHT = "rs_chat"
"""How the id of a reasoning item begins that came from a chat API."""

# Members that both APIs call the same.
_SAME = (
    "model",
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
)
_SEE_BELOW = "the images that the tool returned are in the next message"

Message = dict[str, Any]


def chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request in the form of the chat API. Raises InvalidRequestError that names what it cannot express."""
    request = read_request(body)
    if request.hosted:
        kind = str(request.hosted[0].get("type"))[:40]
        raise InvalidRequestError("tools", f"this provider has no tool {kind!r} of its own; offer a function")
    written: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    written["messages"] = _messages(request)
    if request.max_tokens is not None:
        # Reasoning models of OpenAI refuse `max_tokens`; most other services know no other name.
        written["max_tokens" if request.effort is None else "max_completion_tokens"] = request.max_tokens
    if request.effort is not None:
        written["reasoning_effort"] = request.effort
    if request.functions:
        written["tools"] = [_tool(function) for function in request.functions]
        if (choice := request.tool_choice) is not None:
            named = {"type": "function", "function": {"name": choice[0]}}
            written["tool_choice"] = choice if isinstance(choice, str) else named
        if isinstance(parallel := body.get("parallel_tool_calls"), bool):
            written["parallel_tool_calls"] = parallel
    if request.answer is not None:
        written["response_format"] = _format(request.answer)
    if request.is_streamed:
        written |= {"stream": True, "stream_options": {"include_usage": True}}
    return written


def _tool(function: Function) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
    }
    return {"type": "function", "function": about | ({"strict": True} if function.is_strict else {})}


def _format(answer: AnswerSchema) -> dict[str, Any]:
    if answer.schema is None:
        return {"type": "json_object"}
    about: dict[str, Any] = {"name": answer.name, "schema": answer.schema}
    if answer.is_strict:
        about["strict"] = True
    if answer.description:
        about["description"] = answer.description
    return {"type": "json_schema", "json_schema": about}


def _messages(request: Request) -> list[Message]:
    messages: list[Message] = [{"role": "system", "content": request.system}] if request.system else []
    pictures: list[Part] = []  # of the tool results since the last other message
    thought = ""
    current = request.thoughts_of_this_turn()
    for number, entry in enumerate(request.entries):
        if pictures and not isinstance(entry, Returned):
            messages.append({"role": "user", "content": [_part(part) for part in pictures]})
            pictures = []
        match entry:
            case Thought(text, id, _):
                thought = text if number in current and id.startswith(CHAT_THOUGHT) else ""
            case Said("assistant", parts):
                messages.append({"role": "assistant", "content": text_of(parts), **_thinking(thought)})
                thought = ""
            case Said(role, parts):
                messages.append({"role": role, "content": _content(parts)})
            case Called():
                _append_call(messages, entry, thought)
                thought = ""
            case Returned(call_id, parts):
                shown = [part for part in parts if not isinstance(part, Text)]
                text = "\n".join(filter(None, (text_of(parts), _SEE_BELOW if shown else "")))
                messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
                pictures += shown
    if pictures:
        messages.append({"role": "user", "content": [_part(part) for part in pictures]})
    return messages


def _thinking(thought: str) -> dict[str, str]:
    return {"reasoning_content": thought} if thought else {}


def _append_call(messages: list[Message], call: Called, thought: str) -> None:
    """Add a call to the model's message, which is one for all calls of a turn and for what it said before them."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None, **_thinking(thought)})
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    written = {"id": call.call_id, "type": "function", "function": function, **call.extra}
    messages[-1].setdefault("tool_calls", []).append(written)


def _content(parts: Sequence[Part]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in parts):
        return text_of(parts)
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(url, detail):
            return {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}
        case Audio(data, format):
            return {"type": "input_audio", "input_audio": {"data": data, "format": format}}
        case File(name, data, _) if data is not None:
            return {"type": "file", "file": {"filename": name or "file", "file_data": data}}
        case File():
            raise InvalidRequestError("file_url", "this provider takes no files by URL: send the content as file_data")
