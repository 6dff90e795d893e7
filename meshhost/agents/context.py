"""The conversation of an agent with a model, and the circumstances of one ask.

An AgentChatContext is a list of messages in the form of the LLMAdapter that made it; it is passed from agent to adapter,
which appends what the model said. Chat threads, workers and task runners make one for each conversation or ask. Invariant: its
messages are a conversation that the model accepts as it is, also after a cancellation, so it can always be continued. A plain
object for one task at a time, without a lock.
"""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from meshhost.room.participants import Participant
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["AgentCallContext", "AgentChatContext", "Checkpoint"]

Message: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A conversation at one moment, for `AgentChatContext.roll_back`."""

    messages: tuple[Message, ...]
    previous_messages: tuple[Message, ...]
    previous_response_id: str | None


class AgentChatContext:
    """Messages in the form of the model's adapter, oldest first.

    The agent's rules are the first message, with the role `system_role`. `previous_messages` are stored by the model's API
    under `previous_response_id` and are not sent again. `usage` sums the tokens spent, by kind; it is not part of the JSON
    form.
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
        """The messages to send. The list may be changed in place."""
        return self._messages

    @property
    def system_role(self) -> str:
        """The role of the message that holds the rules."""
        return self._system_role

    @property
    def previous_messages(self) -> list[Message]:
        """The messages that the model's API has stored already."""
        return self._previous_messages

    @property
    def previous_response_id(self) -> str | None:
        """The id of the stored answer that the conversation continues, or None."""
        return self._previous_response_id

    def track_response(self, id: str) -> None:
        """Continue from this stored answer: all messages so far need not be sent again."""
        self._previous_response_id = id
        self._previous_messages.extend(self._messages)
        self._messages.clear()

    def get_system_instructions(self) -> str | None:
        """Return the rules as one text, or None."""
        for message in (*self._previous_messages[:1], *self._messages[:1]):
            if self._is_rules(message):
                return str(message["content"])
        return None

    @property
    def conversation(self) -> list[Message]:
        """The messages to send, without the rules."""
        has_rules = bool(self._messages) and self._is_rules(self._messages[0])
        return self._messages[1:] if has_rules else list(self._messages)

    def replace_rules(self, rules: list[str]) -> None:
        """Set the rules; an empty list removes them."""
        for messages in (self._previous_messages, self._messages):
            if messages and self._is_rules(messages[0]):
                del messages[0]
        if rules:
            self._messages.insert(0, {"role": self._system_role, "content": _as_list(rules)})

    def append_rules(self, rules: list[str]) -> None:
        """Add to the rules."""
        if not rules:
            return
        before = self.get_system_instructions()
        self.replace_rules(rules)
        if before:
            self._messages[0]["content"] = f"{before}\n{_as_list(rules)}"

    def append_user_message(self, message: str) -> None:
        """Append a message of the user."""
        self._messages.append({"role": "user", "content": message})

    def append_user_messages(self, messages: list[str]) -> None:
        """Append several messages of the user, in order."""
        for message in messages:
            self.append_user_message(message)

    def append_user_image(self, url: str) -> None:
        """Append an image from the user, by URL (https or data)."""
        image = {"type": "input_image", "image_url": url, "detail": "auto"}
        self._messages.append({"role": "user", "content": [image]})

    def append_assistant_message(self, message: str) -> None:
        """Append a message of the model."""
        self._messages.append({"role": "assistant", "content": message})

    def checkpoint(self) -> Checkpoint:
        """Return the conversation as it is now."""
        return Checkpoint(tuple(self._messages), tuple(self._previous_messages), self._previous_response_id)

    def roll_back(self, to: Checkpoint) -> None:
        """Take out what was added since the checkpoint.

        For a turn that the model's API refuses: left in the conversation, it would be sent and refused again for ever.
        """
        self._messages[:] = to.messages
        self._previous_messages[:] = to.previous_messages
        self._previous_response_id = to.previous_response_id

    def forget(self) -> None:
        """Take out everything but the rules."""
        rules = [message for message in (*self._previous_messages[:1], *self._messages[:1]) if self._is_rules(message)]
        self._previous_messages.clear()
        self._previous_response_id = None
        self._messages[:] = rules[-1:]

    def add_usage(self, usage: dict[str, int]) -> None:
        """Add tokens to `usage`, by kind."""
        for kind, amount in usage.items():
            self.usage[kind] = self.usage.get(kind, 0) + amount

    def copy(self) -> "AgentChatContext":
        """Return an independent copy of the conversation."""
        twin = AgentChatContext.from_json(copy.deepcopy(self.to_json()))
        twin.usage = dict(self.usage)
        return twin

    def to_json(self) -> dict[str, Any]:
        """Return the conversation as JSON for `from_json`. The lists are not copied."""
        return {
            "messages": self._messages,
            "system_role": self._system_role,
            "previous_messages": self._previous_messages,
            "previous_response_id": self._previous_response_id,
        }

    @staticmethod
    def from_json(json: dict[str, Any]) -> "AgentChatContext":
        """Return the conversation that `to_json` wrote; missing members count as empty."""
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
    """One ask: its conversation and room, the available toolkits, the asker, and the participant it asks for."""

    chat: AgentChatContext
    room: "RoomClient"
    toolkits: list[Toolkit] = field(default_factory=list)
    caller: Participant | None = None
    on_behalf_of: Participant | None = None


def _as_list(rules: list[str]) -> str:
    return "\n".join(f"- {rule}" for rule in rules)
