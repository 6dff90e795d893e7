"""Writes a request of the Responses API as one of Anthropic's Messages API.

What differs: roles must alternate, the results of tools come first in the user's turn, the system text is a member of its own,
`max_tokens` is required, and what the model thought goes back with its signature or not at all (`PROOF`, `HIDDEN_PROOF`).

A schema of the answer is native (`output_config`) where the model has that. Elsewhere it becomes a tool, `ANSWER_TOOL`, whose
arguments are the answer; the reader turns them into the text again. Effort is `output_config.effort` with adaptive thinking on
models since 4.6, and a budget of thinking tokens on older ones and on other services with this API.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.llm.conversation import Audio, Called, Entry, File, Image, Part, Returned, Said, Text, Thought
from meshhost.llm.request import AnswerSchema, Function, Request, read_request

__all__ = ["ANSWER_TOOL", "HIDDEN_PROOF", "PROOF", "WRAPPED", "messages_request"]

ANSWER_TOOL = "final_answer"
"""The name of the tool whose arguments are the answer."""

WRAPPED = "value"
"""The member that holds an answer that is no object, which arguments of a tool must be."""

PROOF = "anthropic:"
"""How the encrypted content of a reasoning item begins that holds the signature of a thought of this API."""

HIDDEN_PROOF = "anthropic-hidden:"
"""The same of a thought that is hidden: the rest is its data."""

_LEAST_BUDGET = 1024
_BUDGETS = {"low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 32_768}
_EFFORTS = {"minimal": "low"}
_DEFAULT_TOKENS = 16_384
_OLD_TOKENS = (
    (re.compile(r"claude-3-(opus|sonnet|haiku)"), 4096),
    (re.compile(r"claude-3"), 8192),
    (re.compile(r"claude-opus-4-(0|1|20)"), 16_384),
)
_IS_CLAUDE = re.compile(r"(^|[./])claude-")
_HAS_NO_SCHEMA = re.compile(r"claude-3|claude-(opus|sonnet)-4(-[01]\b|-20|$|@)")
_HAS_NO_EFFORT = re.compile(r"claude-3|claude-(opus|sonnet|haiku)-4(-[015]\b|-20|$|@)")
# Models since 4.7 take the default values only.
_HAS_SAMPLING = re.compile(r"claude-3|claude-(opus|sonnet|haiku)-4(-[0156]\b|-20|$|@)")
_OWN_TOOL = re.compile(r"[a-z_]+_20\d{6}")
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)
_BAD_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")

Block = dict[str, Any]


def messages_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request in the form of the Messages API. Raises InvalidRequestError that names what it cannot express."""
    request = read_request(body)
    tools = [*(_tool(function) for function in request.functions), *(_hosted(tool) for tool in request.hosted)]
    written: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or _default_tokens(request.model),
        "messages": _messages(request.entries),
    }
    if request.system:
        written["system"] = request.system
    if request.is_streamed:
        written["stream"] = True
    if isinstance(user := body.get("safety_identifier") or body.get("user"), str):
        written["metadata"] = {"user_id": user}
    choice = _choice(request.tool_choice, body.get("parallel_tool_calls"), has_tools=bool(tools))
    _think(request, written)
    if request.answer is not None:
        choice = _answer(request, request.answer, written, tools, choice)
    if tools:
        written["tools"] = tools
        if choice is not None:
            written["tool_choice"] = choice
    if "thinking" not in written and (not _IS_CLAUDE.search(request.model) or _HAS_SAMPLING.search(request.model)):
        written |= {name: body[name] for name in ("temperature", "top_p") if body.get(name) is not None}
        if "temperature" in written and "top_p" in written:
            del written["top_p"]  # newer models take one of them
    return written


def _default_tokens(model: str) -> int:
    return next((most for name, most in _OLD_TOKENS if name.search(model)), _DEFAULT_TOKENS)


def _tool(function: Function) -> Block:
    schema = {"type": "object", **function.parameters}
    return {"name": function.name, "description": function.description, "input_schema": schema}


def _hosted(tool: Mapping[str, Any]) -> Block:
    kind = str(tool.get("type"))
    if _OWN_TOOL.fullmatch(kind):
        return dict(tool)
    if kind in ("web_search", "web_search_preview"):
        filters, place = tool.get("filters"), tool.get("user_location")
        allowed = filters.get("allowed_domains") if isinstance(filters, Mapping) else None
        return {
            "type": "web_search_20250305",
            "name": "web_search",
            **({"allowed_domains": allowed} if allowed else {}),
            **({"user_location": {"type": "approximate", **place}} if isinstance(place, Mapping) else {}),
        }
    raise InvalidRequestError("tools", f"this provider has no tool {kind[:40]!r} of its own; offer a function")


def _choice(given: str | tuple[str] | None, parallel: Any, *, has_tools: bool) -> Block | None:
    match given:
        case (name,):
            choice: Block | None = {"type": "tool", "name": name}
        case "required":
            choice = {"type": "any"}
        case "none":
            return {"type": "none"}
        case _:
            choice = {"type": "auto"} if given == "auto" else None
    if parallel is False and has_tools:
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def _think(request: Request, written: dict[str, Any]) -> None:
    """Ask for the effort, unless the conversation has a turn in progress without the thoughts that must then be in it."""
    effort = request.effort
    if effort in (None, "none") or (effort == "minimal" and not _is_new(request.model, _HAS_NO_EFFORT)):
        return
    if _is_new(request.model, _HAS_NO_EFFORT):
        written["thinking"] = {"type": "adaptive"}
        written["output_config"] = {"effort": _EFFORTS.get(str(effort), effort)}
        return
    if not _has_thoughts_of_turn(request):
        return
    budget = max(_BUDGETS.get(str(effort), _BUDGETS["medium"]), _LEAST_BUDGET)
    written["thinking"] = {"type": "enabled", "budget_tokens": budget}
    written["max_tokens"] += budget


def _has_thoughts_of_turn(request: Request) -> bool:
    last = max(
        (n for n, each in enumerate(request.entries) if isinstance(each, Said) and each.role == "user"), default=-1
    )
    turn = request.entries[last + 1 :]
    called = next((n for n, each in enumerate(turn) if isinstance(each, Called)), None)
    return called is None or any(isinstance(each, Thought) and _thought(each) for each in turn[:called])


def _answer(
    request: Request, answer: AnswerSchema, written: dict[str, Any], tools: list[Block], choice: Block | None
) -> Block | None:
    """Ask for the schema, natively or by a tool; return the choice of a tool."""
    if answer.schema is not None and answer.is_strict and _is_new(request.model, _HAS_NO_SCHEMA):
        form = {"type": "json_schema", "schema": answer.schema}
        written["output_config"] = {**written.get("output_config", {}), "format": form}
        return choice
    schema = answer.schema or {"type": "object"}
    if schema.get("type") != "object":
        inner = {key: value for key, value in schema.items() if key != "$defs"}
        wrapped = {"type": "object", "properties": {WRAPPED: inner}, "required": [WRAPPED]}
        schema = {**wrapped, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}
    description = answer.description or "Gives the final answer. Call it once, when nothing else is left to do."
    tools.append({"name": ANSWER_TOOL, "description": description, "input_schema": schema})
    single = {key: value for key, value in (choice or {}).items() if key == "disable_parallel_tool_use"}
    if "thinking" in written:  # a tool cannot be forced then
        hint = f"Give your final answer by calling the tool {ANSWER_TOOL}."
        written["system"] = "\n\n".join(filter(None, (written.get("system"), hint)))
        return {"type": "auto", **single}
    if choice is not None and choice["type"] == "tool":
        return choice
    if len(tools) > 1 and choice != {"type": "none"}:
        return {"type": "any", **single}
    return {"type": "tool", "name": ANSWER_TOOL}


def _is_new(model: str, without: re.Pattern[str]) -> bool:
    return _IS_CLAUDE.search(model) is not None and without.search(model) is None


def _messages(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    turns: list[tuple[str, list[Block]]] = []
    for entry in entries:
        is_models = isinstance(entry, Called | Thought) or (isinstance(entry, Said) and entry.role == "assistant")
        role = "assistant" if is_models else "user"
        blocks = _blocks(entry)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    if not turns or turns[0][0] != "user":
        turns.insert(0, ("user", [{"type": "text", "text": "(continue)"}]))
    for role, blocks in turns:
        if role == "user":
            blocks.sort(key=lambda block: block["type"] != "tool_result")  # a stable sort: results first
    return [{"role": role, "content": blocks} for role, blocks in turns]


def _blocks(entry: Entry) -> list[Block]:
    match entry:
        case Said("assistant", parts):
            return [
                {"type": "text", "text": part.text} for part in parts if isinstance(part, Text) and part.text.strip()
            ]
        case Said(_, parts):
            return [_block(part) for part in parts if not isinstance(part, Text) or part.text.strip()]
        case Called(call_id, name, arguments, _):
            return [{"type": "tool_use", "id": _id(call_id), "name": name, "input": _object(arguments)}]
        case Returned(call_id, parts):
            content = [_block(part) for part in parts if not isinstance(part, Text) or part.text]
            return [{"type": "tool_result", "tool_use_id": _id(call_id), **({"content": content} if content else {})}]
        case Thought():
            found = _thought(entry)
            return [found] if found else []


def _thought(thought: Thought) -> Block | None:
    """Return the thought as a block, or None when it is another provider's."""
    if thought.proof.startswith(HIDDEN_PROOF):
        return {"type": "redacted_thinking", "data": thought.proof.removeprefix(HIDDEN_PROOF)}
    if thought.proof.startswith(PROOF):
        return {"type": "thinking", "thinking": thought.text, "signature": thought.proof.removeprefix(PROOF)}
    return None


def _id(call_id: str) -> str:
    return _BAD_IN_ID.sub("_", call_id) or "unnamed"


def _object(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        found = None
    # The API takes objects only; the model sees what it wrote.
    return found if isinstance(found, dict) else {"arguments": arguments}


def _block(part: Part) -> Block:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(url, _):
            return {"type": "image", "source": _source(url, "image/png")}
        case File(name, data, url):
            title = {"title": name} if name else {}
            return {"type": "document", "source": _document(data, url), **title}
        case Audio():
            raise InvalidRequestError("input_audio", "this provider takes no sound")


def _source(url: str, kind: str) -> Block:
    if (found := _DATA_URL.fullmatch(url)) is not None:
        return {"type": "base64", "media_type": found[1] or kind, "data": found[2]}
    return {"type": "url", "url": url}


def _document(data: str | None, url: str | None) -> Block:
    if data is None:
        return {"type": "url", "url": url}
    found = _DATA_URL.fullmatch(data)
    kind, content = (found[1], found[2]) if found else ("application/pdf", data)
    if kind.startswith("text/") or kind == "application/json":
        try:
            text = base64.b64decode(content).decode(errors="replace")
        except binascii.Error:
            raise InvalidRequestError("file_data", "is not base64") from None
        return {"type": "text", "media_type": "text/plain", "data": text}
    return {"type": "base64", "media_type": kind or "application/pdf", "data": content}
