"""The decisions of a chat bot as pure functions, without tasks or I/O, so that they can be tested with plain values.

`parse_request` reads a participant's message, `judge` decides what happens to it while the thread is busy, `compact`
shortens a conversation that has become too long, `is_refused` says whether the model refused the conversation itself, so
that sending it again fails again, and `explained` turns an error into a text for people. Used by `bot.py`, `threads.py` and
`thread.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError, LLMError, RoomError

__all__ = [
    "DECISION_SCHEMA",
    "LEFT_OUT",
    "REFUSED",
    "BusyPolicy",
    "ChatRequest",
    "Verdict",
    "compact",
    "decision_rules",
    "explained",
    "is_refused",
    "judge",
    "parse_request",
    "size_of",
]

# What happens to a message that arrives while the one before is being answered.
BusyPolicy: TypeAlias = Literal["queue", "interrupt", "reject"]
Verdict: TypeAlias = Literal["queue", "interrupt", "busy", "full"]

LEFT_OUT = "[Earlier messages of this conversation were left out, because it had become too long.]"
REFUSED = "[A message of this conversation was left out, because the model's provider refused it.]"
# The provider does not accept the request itself: sending the same conversation again would be refused again.
_REFUSED_STATUSES = frozenset({400, 413, 415, 422})
MAX_ATTACHMENTS = 32
MAX_TEXT_CHARS = 1_000_000
MAX_ERROR_CHARS = 300

# The model's answer to the question whether a message is meant for it.
DECISION_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["reasoning", "expecting_assistant_reply"],
    "properties": {"reasoning": {"type": "string"}, "expecting_assistant_reply": {"type": "boolean"}},
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A participant's request to a thread.

    `kind` is the type of its message, `raw` its body. `id` is the attribute `id` of its element in the document, if the
    client sent it. `path` is spelled as the sender spelled it.
    """

    kind: str
    path: str
    sender_id: str
    text: str = ""
    attachments: tuple[str, ...] = ()
    model: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    id: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse_request(kind: str, sender_id: str, message: Any) -> ChatRequest:
    """Parse the body of a participant's message. Raises InvalidRequestError that names the wrong field."""
    if not isinstance(message, dict):
        raise InvalidRequestError("message", "expected a JSON object")
    path = message.get("path")
    if not isinstance(path, str) or not path:
        raise InvalidRequestError("path", "expected the path of a thread")
    if kind != "chat":
        return ChatRequest(kind, path, sender_id, raw=message)
    text, attachments = message.get("text", ""), _attachments(message.get("attachments"))
    if not isinstance(text, str) or not (text.strip() or attachments):
        raise InvalidRequestError("text", "expected a text that is not empty, or attachments")
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidRequestError("text", f"expected at most {MAX_TEXT_CHARS} characters: attach a file instead")
    return ChatRequest(
        kind=kind,
        path=path,
        sender_id=sender_id,
        text=text,
        attachments=attachments,
        model=_optional_text(message, "model"),
        tools=_tools(message.get("tools")),
        id=_optional_text(message, "id"),
        raw=message,
    )


def _optional_text(message: Mapping[str, Any], name: str) -> str | None:
    value = message.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(name, "expected a text")
    return value or None


def _attachments(value: Any) -> tuple[str, ...]:
    found = [] if value is None else value
    if not isinstance(found, list) or len(found) > MAX_ATTACHMENTS:
        raise InvalidRequestError("attachments", f"expected a list of at most {MAX_ATTACHMENTS} objects with a path")
    paths = [each.get("path") if isinstance(each, dict) else None for each in found]
    if not all(isinstance(path, str) and path for path in paths):
        raise InvalidRequestError("attachments", "expected objects with a path")
    return tuple(map(str, paths))


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    found = [] if value is None else value
    if not isinstance(found, list) or not all(isinstance(each, dict) and each.get("name") for each in found):
        raise InvalidRequestError("tools", "expected a list of objects with a name")
    return tuple(found)


def judge(policy: BusyPolicy, *, is_busy: bool, waiting: int, max_waiting: int) -> Verdict:
    """Decide about a chat message when `waiting` others wait: "busy" and "full" refuse it."""
    if is_busy and policy == "reject":
        return "busy"
    if waiting >= max_waiting:
        return "full"
    return "interrupt" if is_busy and policy == "interrupt" else "queue"


def decision_rules(own: str | None, user: str | None, members: Sequence[str]) -> list[str]:
    """Return the rules under which a model decides whether the last message, from `user`, is meant for it (`own`)."""
    return [
        f"You are {own!r}, one of several in a conversation. Do not take part in it now.",
        f"Members: {', '.join(members)}. The last message is from {user!r}.",
        f"Say whether the last message expects a reply of {own!r}, rather than of somebody else or of nobody.",
    ]


def size_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return about how many characters these messages have when they are sent to the model."""
    return sum(len(json.dumps(message, ensure_ascii=False, default=str)) for message in messages)


def compact(context: AgentChatContext, max_chars: int) -> int:
    """Drop the oldest turns until the conversation has at most `max_chars` characters; return how many were dropped.

    The rules and the last turn are kept. A turn begins with a user message, so a tool call is never separated from its
    result. LEFT_OUT replaces what was dropped. A conversation that the model's API stores is not shortened here.
    """
    if context.previous_response_id is not None or size_of(context.messages) <= max_chars:
        return 0
    rules = context.messages[: len(context.messages) - len(context.conversation)]
    turns = _turns([message for message in context.conversation if message.get("content") != LEFT_OUT])
    note = {"role": "user", "content": LEFT_OUT}
    left = max_chars - size_of([*rules, note])
    kept: list[list[dict[str, Any]]] = []
    for turn in reversed(turns):
        left -= size_of(turn)
        if kept and left < 0:
            break
        kept.insert(0, turn)
    dropped = len(turns) - len(kept)
    if dropped:
        context.messages[:] = [*rules, note, *(message for turn in kept for message in turn)]
    return dropped


def explained(error: Exception, name: str) -> str:
    """Return the text about an error for the people in the room; `name` is the bot's."""
    if isinstance(error, LLMError):
        return f"The model did not answer: {str(error)[:MAX_ERROR_CHARS]}"
    if isinstance(error, RoomError):
        return str(error)[:MAX_ERROR_CHARS]
    return f"Something went wrong; the log of {name!r} says what."


def is_refused(error: Exception) -> bool:
    """Whether the model's provider refused the conversation that was sent, and would refuse it again."""
    return isinstance(error, LLMError) and error.status in _REFUSED_STATUSES


def _turns(messages: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split into turns. Consecutive user messages (a text and its images) belong to one turn."""
    turns: list[list[dict[str, Any]]] = []
    before = ""
    for message in messages:
        role = str(message.get("role"))
        if not turns or (role == "user" and before != "user"):
            turns.append([])
        turns[-1].append(message)
        before = role
    return turns
