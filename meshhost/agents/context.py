"""The conversation an agent has with a model."""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from meshhost.room.participants import Participant
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["AgentCallContext", "AgentChatContext"]

Message: TypeAlias = dict[str, Any]


class AgentChatContext:
    """Messages in the form the model's adapter takes them, oldest first.

    The rules an agent lives by are the first message, under `system_role`. `previous_messages` are those a gateway keeps
    under `previous_response_id`; they are not sent again. `usage` sums the tokens spent; it is not part of the JSON form.
    """

    def __init__(
        self,
        *,
        messages: list[Message] | None = None,
        system_role: str | None = None,
        previous_messages: list[Message] | None = None,
        previous_response_id: str | None = None,
    ) -> None:
        self._messages = list(messages or ())
        self._system_role = system_role or "system"
        self._previous_messages = list(previous_messages or ())
        self._previous_response_id = previous_response_id
        self.usage: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<AgentChatContext messages={len(self._messages)} previous={len(self._previous_messages)}>"

    @property
    def messages(self) -> list[Message]:
        """The messages to send; may be changed in place."""
        return self._messages

    @property
    def system_role(self) -> str:
        """The role of the message that holds the rules."""
        return self._system_role

    @property
    def previous_messages(self) -> list[Message]:
        """The messages the gateway knows already."""
        return self._previous_messages

    @property
    def previous_response_id(self) -> str | None:
        """The answer the conversation continues, when the gateway keeps it."""
        return self._previous_response_id

    def track_response(self, id: str) -> None:
        """Continue from this answer: all messages so far are the gateway's now."""
        self._previous_response_id = id
        self._previous_messages.extend(self._messages)
        self._messages.clear()

    def get_system_instructions(self) -> str | None:
        """The rules as one text, or None."""
        for message in (*self._previous_messages[:1], *self._messages[:1]):
            if self._is_rules(message):
                return str(message["content"])
        return None

    @property
    def conversation(self) -> list[Message]:
        """The messages to send apart from the rules."""
        has_rules = bool(self._messages) and self._is_rules(self._messages[0])
        return self._messages[1:] if has_rules else list(self._messages)

    def replace_rules(self, rules: list[str]) -> None:
        """Let these be the rules; none at all with an empty list."""
        for messages in (self._previous_messages, self._messages):
            if messages and self._is_rules(messages[0]):
                del messages[0]
        if rules:
            self._messages.insert(0, {"role": self._system_role, "content": _listed(rules)})

    def append_rules(self, rules: list[str]) -> None:
        """Add to the rules."""
        if not rules:
            return
        before = self.get_system_instructions()
        self.replace_rules(rules)
        if before:
            self._messages[0]["content"] = f"{before}\n{_listed(rules)}"

    def append_user_message(self, message: str) -> None:
        """Something the user said."""
        self._messages.append({"role": "user", "content": message})

    def append_user_messages(self, messages: list[str]) -> None:
        """Several things the user said, in order."""
        for message in messages:
            self.append_user_message(message)

    def append_user_image(self, url: str) -> None:
        """A picture the user shows, by address (https or data)."""
        image = {"type": "input_image", "image_url": url, "detail": "auto"}
        self._messages.append({"role": "user", "content": [image]})

    def append_assistant_message(self, message: str) -> None:
        """Something the model said."""
        self._messages.append({"role": "assistant", "content": message})

    def add_usage(self, usage: dict[str, int]) -> None:
        """Add to the tokens spent, by kind."""
        for kind, amount in usage.items():
            self.usage[kind] = self.usage.get(kind, 0) + amount

    def copy(self) -> "AgentChatContext":
        """An independent copy of the conversation."""
        twin = AgentChatContext.from_json(copy.deepcopy(self.to_json()))
        twin.usage = dict(self.usage)
        return twin

    def to_json(self) -> dict[str, Any]:
        """The conversation as JSON; `from_json` reads it."""
        return {
            "messages": self._messages,
            "system_role": self._system_role,
            "previous_messages": self._previous_messages,
            "previous_response_id": self._previous_response_id,
        }

    @staticmethod
    def from_json(json: dict[str, Any]) -> "AgentChatContext":
        """What `to_json` wrote. Members that are missing are empty."""
        return AgentChatContext(
            messages=json.get("messages"),
            system_role=json.get("system_role"),
            previous_messages=json.get("previous_messages"),
            previous_response_id=json.get("previous_response_id"),
        )

    def _is_rules(self, message: Message) -> bool:
        return message.get("role") == self._system_role and isinstance(message.get("content"), str)


@dataclass(frozen=True, slots=True)
class AgentCallContext:
    """One ask: its conversation, the room, the toolkits at hand, who asked and for whom."""

    chat: AgentChatContext
    room: "RoomClient"
    toolkits: list[Toolkit] = field(default_factory=list)
    caller: Participant | None = None
    on_behalf_of: Participant | None = None


def _listed(rules: list[str]) -> str:
    return "\n".join(f"- {rule}" for rule in rules)
