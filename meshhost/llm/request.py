"""The parts of a Responses request that requests of other APIs are written from: tools, the choice of one, the answer's form.

Read once here, with errors that name the member; the writers (`chat_request.py`, `messages_request.py`) only put them in their
API's words. What other APIs cannot do at all is refused here: stored conversations and work in the background.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshhost.errors import InvalidRequestError, NotFoundError
from meshhost.llm.conversation import Entry, Said, Text, Thought, entries_of, text_of

__all__ = ["AnswerSchema", "Function", "Request", "read_request"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the caller offers."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """The JSON schema of the answer; `schema` is None for any JSON object."""

    name: str
    schema: Mapping[str, Any] | None
    is_strict: bool = False
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request, as far as every API can express it.

    `tool_choice` is auto, none, required, or the name of a function in a tuple of one. `hosted` are the definitions of tools
    that the provider runs, as they came.
    """

    body: Mapping[str, Any]
    model: str
    system: str
    entries: tuple[Entry, ...]
    functions: tuple[Function, ...]
    hosted: tuple[Mapping[str, Any], ...]
    tool_choice: str | tuple[str] | None
    answer: AnswerSchema | None
    max_tokens: int | None
    effort: str | None
    is_streamed: bool

    def thoughts_of_this_turn(self) -> frozenset[int]:
        """The positions of thoughts after the last message of the user; earlier ones may be left out."""
        last = max(
            (n for n, each in enumerate(self.entries) if isinstance(each, Said) and each.role == "user"), default=-1
        )
        return frozenset(n for n, each in enumerate(self.entries) if n > last and isinstance(each, Thought))


def read_request(body: Mapping[str, Any]) -> Request:
    """Read the body of a `POST /v1/responses`. Raises InvalidRequestError, and NotFoundError for a stored response."""
    if body.get("previous_response_id"):
        raise NotFoundError("this provider stores no responses: send the whole conversation as input")
    for name in ("conversation", "background", "prompt"):
        if body.get(name):
            raise InvalidRequestError(name, "this provider cannot do that: send the whole conversation as input")
    system, entries = _without_system(entries_of(body.get("input")))
    functions, hosted = _tools(body.get("tools"))
    choice, functions = _choice(body.get("tool_choice"), functions, hosted)
    limit, reasoning = body.get("max_output_tokens"), body.get("reasoning")
    effort = reasoning.get("effort") if isinstance(reasoning, Mapping) else None
    instructions = body.get("instructions")
    texts = [instructions if isinstance(instructions, str) else "", *system]
    return Request(
        body=body,
        model=str(body.get("model") or ""),
        system="\n\n".join(filter(None, texts)),
        entries=tuple(entries),
        functions=functions,
        hosted=hosted,
        tool_choice=choice,
        answer=_answer(body.get("text")),
        max_tokens=limit if isinstance(limit, int) and limit > 0 else None,
        effort=effort if isinstance(effort, str) and effort else None,
        is_streamed=body.get("stream") is True,
    )


def _without_system(entries: list[Entry]) -> tuple[list[str], list[Entry]]:
    """The texts of the system messages that the conversation begins with, and the rest of it."""
    first = next(
        (n for n, each in enumerate(entries) if not (isinstance(each, Said) and each.role == "system")), len(entries)
    )
    system = [text_of(each.parts) for each in entries[:first] if isinstance(each, Said)]
    return system, [_readable(each) for each in entries[first:]]


def _readable(entry: Entry) -> Entry:
    # An empty message is refused by most services.
    return Said(entry.role, (Text(" "),)) if isinstance(entry, Said) and not entry.parts else entry


def _tools(given: Any) -> tuple[tuple[Function, ...], tuple[Mapping[str, Any], ...]]:
    if given is None:
        return (), ()
    if not isinstance(given, list) or not all(isinstance(tool, Mapping) for tool in given):
        raise InvalidRequestError("tools", "expected a list of tools")
    functions = []
    for number, tool in enumerate(given):
        if tool.get("type", "function") != "function":
            continue
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise InvalidRequestError(f"tools[{number}].name", "expected the name of the function")
        parameters = tool.get("parameters")
        functions.append(
            Function(
                tool["name"],
                str(tool.get("description") or ""),
                parameters if isinstance(parameters, Mapping) and parameters else {"type": "object", "properties": {}},
                tool.get("strict") is True,
            )
        )
    return tuple(functions), tuple(tool for tool in given if tool.get("type", "function") != "function")


def _choice(
    given: Any, functions: tuple[Function, ...], hosted: tuple[Mapping[str, Any], ...]
) -> tuple[str | tuple[str] | None, tuple[Function, ...]]:
    """Return the choice, and the functions that may be chosen from."""
    if given is None:
        return None, functions
    if isinstance(given, str):
        if given in ("auto", "none", "required"):
            return given, functions
        raise InvalidRequestError("tool_choice", "expected auto, none, required or a function")
    if isinstance(given, Mapping) and given.get("type") == "allowed_tools":
        tools = given.get("tools")
        names = {each.get("name") for each in tools if isinstance(each, Mapping)} if isinstance(tools, list) else set()
        return str(given.get("mode") or "auto"), tuple(each for each in functions if each.name in names)
    name = given.get("name") if isinstance(given, Mapping) else None
    if any(each.name == name for each in functions):
        return (str(name),), functions
    if isinstance(given, Mapping) and any(tool.get("type") == given.get("type") for tool in hosted):
        return "required", functions
    raise InvalidRequestError("tool_choice", "expected auto, none, required or an offered function")


def _answer(given: Any) -> AnswerSchema | None:
    found = given.get("format") if isinstance(given, Mapping) else None
    if not isinstance(found, Mapping) or found.get("type") not in ("json_schema", "json_object"):
        return None
    if found["type"] == "json_object":
        return AnswerSchema("answer", None)
    if not isinstance(found.get("schema"), Mapping):
        raise InvalidRequestError("text.format.schema", "expected a JSON schema")
    described = found.get("description")
    return AnswerSchema(
        str(found.get("name") or "answer"),
        found["schema"],
        found.get("strict") is True,
        described if isinstance(described, str) else None,
    )
