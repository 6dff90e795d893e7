"""The wire forms of OpenAI's Responses API: parsing a request, and building the events of an answer.

Only providers that generate answers themselves need this: the local model, and the scripted provider of the tests.
`read_request` takes what a small text model can use and leaves out the rest; `ResponseBuilder` returns the events of each
step in the order that the official client expects, numbered without gaps, and keeps the body that the last event and a
non-streamed answer contain.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshhost.errors import InvalidRequestError

__all__ = ["AskedResponse", "Event", "FunctionTool", "ResponseBuilder", "TokenUsage", "read_request"]

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A tool that the caller offers; `parameters` is its JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AskedResponse:
    """A request, as far as a small local model can use it.

    `user` is the last user message, `results` are the tool outputs after it. `tool_choice` is "auto", "none",
    "required" or the name of one tool. `text_schema` constrains a text answer.
    """

    model: str
    instructions: str
    user: str
    results: tuple[str, ...] = ()
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: str = "auto"
    text_schema: Mapping[str, Any] | None = None
    max_output_tokens: int | None = None
    stream: bool = False


@dataclass(slots=True)
class TokenUsage:
    """Tokens read and written, summed over the generations of one answer."""

    input_tokens: int = 0
    output_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts in the form of the Responses API."""
        return {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(slots=True)
class ResponseBuilder:
    """Builds one answer: every step returns its events, and `body` is the answer so far.

    At most one item is open at a time: text_begin, text_delta…, text_end, or call_begin, call_delta…, call_end.
    """

    model: str
    request: Mapping[str, Any] = field(default_factory=dict)
    usage: TokenUsage = field(default_factory=TokenUsage)
    body: dict[str, Any] = field(init=False)
    _sequence: int = 0
    _pieces: list[str] = field(default_factory=list)

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

    def begin(self) -> list[Event]:
        """Return the first events."""
        return [
            self._event("response.created", response=self._copy()),
            self._event("response.in_progress", response=self._copy()),
        ]

    def text_begin(self) -> list[Event]:
        """Open an assistant message."""
        item = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [self._open(item), self._on_item("response.content_part.added", content_index=0, part=part)]

    def text_delta(self, piece: str) -> list[Event]:
        """Add to the message's text."""
        self._pieces.append(piece)
        return [self._on_item("response.output_text.delta", content_index=0, delta=piece, logprobs=[])]

    def text_end(self) -> list[Event]:
        """Close the message."""
        text = "".join(self._pieces)
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return [
            self._on_item("response.output_text.done", content_index=0, text=text, logprobs=[]),
            self._on_item("response.content_part.done", content_index=0, part=part),
            self._close(content=[part]),
        ]

    def refusal(self, reason: str) -> list[Event]:
        """Add a message that declines to answer."""
        item = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        part = {"type": "refusal", "refusal": reason}
        return [
            self._open(item),
            self._on_item("response.content_part.added", content_index=0, part={"type": "refusal", "refusal": ""}),
            self._on_item("response.refusal.delta", content_index=0, delta=reason),
            self._on_item("response.refusal.done", content_index=0, refusal=reason),
            self._on_item("response.content_part.done", content_index=0, part=part),
            self._close(content=[part]),
        ]

    def call_begin(self, name: str) -> list[Event]:
        """Open a call of the tool `name`."""
        call_id = f"call_{secrets.token_hex(12)}"
        item = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "status": "in_progress"}
        return [self._open({**item, "call_id": call_id, "name": name, "arguments": ""})]

    def call_delta(self, piece: str) -> list[Event]:
        """Add to the JSON text of the call's arguments."""
        self._pieces.append(piece)
        return [self._on_item("response.function_call_arguments.delta", delta=piece)]

    def call_end(self) -> list[Event]:
        """Close the call."""
        arguments = "".join(self._pieces)
        name = self.body["output"][-1]["name"]
        done = self._on_item("response.function_call_arguments.done", name=name, arguments=arguments)
        return [done, self._close(arguments=arguments)]

    def complete(self) -> list[Event]:
        """Return the last event of a complete answer."""
        self.body |= {"status": "completed", "usage": self.usage.as_json()}
        return [self._event("response.completed", response=self._copy())]

    def fail(self, message: str) -> list[Event]:
        """Return the last event of an answer that failed."""
        self.body |= {
            "status": "failed",
            "usage": self.usage.as_json(),
            "error": {"code": "server_error", "message": message},
        }
        return [self._event("response.failed", response=self._copy())]

    def _open(self, item: dict[str, Any]) -> Event:
        self._pieces = []
        self.body["output"].append(item)
        return self._event("response.output_item.added", output_index=self._index(), item=dict(item))

    def _close(self, **fields: Any) -> Event:
        item = self.body["output"][-1]
        item |= {"status": "completed", **fields}
        return self._event("response.output_item.done", output_index=self._index(), item=dict(item))

    def _on_item(self, type: str, **fields: Any) -> Event:
        return self._event(type, item_id=self.body["output"][-1]["id"], output_index=self._index(), **fields)

    def _event(self, type: str, **fields: Any) -> Event:
        event = {"type": type, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _index(self) -> int:
        return len(self.body["output"]) - 1

    def _copy(self) -> dict[str, Any]:
        return {**self.body, "output": [dict(item) for item in self.body["output"]]}


def read_request(body: Mapping[str, Any]) -> AskedResponse:
    """Parse the body of a `POST /v1/responses`. Raises InvalidRequestError.

    Items that a small text model cannot use (images, reasoning, hosted tools) are left out.
    """
    if body.get("previous_response_id") or body.get("conversation"):
        raise InvalidRequestError(
            "previous_response_id", "the local model keeps no conversations; send the whole input"
        )
    system, user, results = _read_input(body.get("input"))
    instructions = [text for text in (body.get("instructions"), *system) if isinstance(text, str) and text]
    tools = tuple(_read_tools(body.get("tools") or []))
    limit = body.get("max_output_tokens")
    return AskedResponse(
        model=str(body.get("model") or ""),
        instructions="\n".join(instructions),
        user=user,
        results=tuple(results),
        tools=tools,
        tool_choice=_read_tool_choice(body.get("tool_choice"), tools),
        text_schema=_read_text_schema(body.get("text")),
        max_output_tokens=limit if isinstance(limit, int) and limit > 0 else None,
        stream=body.get("stream") is True,
    )


def _read_input(given: Any) -> tuple[list[str], str, list[str]]:
    if isinstance(given, str):
        return [], given, []
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise InvalidRequestError("input", "expected a text or a list of items")
    system, user, results = [], "", []
    for item in given:
        if item.get("type") == "function_call_output":
            results.append(_text_of(item.get("output")))
        elif item.get("role") in {"system", "developer"}:
            system.append(_text_of(item.get("content")))
        elif item.get("role") == "user":
            user, results = _text_of(item.get("content")), []
    return system, user, results


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return "" if content is None else json.dumps(content)


def _read_tools(given: Any) -> Iterator[FunctionTool]:
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise InvalidRequestError("tools", "expected a list of tools")
    for tool in given:
        if tool.get("type") == "function":
            if not isinstance(tool.get("name"), str):
                raise InvalidRequestError("tools", "expected a name in each function tool")
            parameters = tool.get("parameters")
            yield FunctionTool(
                tool["name"], str(tool.get("description") or ""), parameters if isinstance(parameters, dict) else {}
            )


def _read_tool_choice(given: Any, tools: tuple[FunctionTool, ...]) -> str:
    choice = given.get("name") if isinstance(given, dict) else given
    if choice is None:
        return "auto"
    if choice not in {"auto", "none", "required", *(tool.name for tool in tools)}:
        raise InvalidRequestError("tool_choice", "expected auto, none, required or an offered function")
    return str(choice)


def _read_text_schema(given: Any) -> Mapping[str, Any] | None:
    found = given.get("format") if isinstance(given, dict) else None
    if isinstance(found, dict) and found.get("type") == "json_schema" and isinstance(found.get("schema"), dict):
        return dict(found["schema"])
    return {"type": "object"} if isinstance(found, dict) and found.get("type") == "json_object" else None


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
