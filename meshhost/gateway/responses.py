"""Reads a request of OpenAI's Responses API for a provider that generates the answer itself: the local model.

`read_request` takes what a small text model can use and leaves out the rest. The answer is built by `meshhost.llm.builder`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshhost.errors import InvalidRequestError

__all__ = ["AskedResponse", "FunctionTool", "read_request"]


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
