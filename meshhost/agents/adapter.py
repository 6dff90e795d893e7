"""The interface between agents and models: `LLMAdapter` continues a conversation, `ToolResponseAdapter` translates answers.

Agents call these two and never a model's API. An adapter for another API (the only one here is `meshhost.openai`) subclasses
them; it decides how messages look in an AgentChatContext, so a conversation belongs to the adapter that made it. One adapter
object serves many conversations at once and must keep no state of any.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshhost.agents.context import AgentChatContext
from meshhost.protocol.messages import Response
from meshhost.tools.schema import Schema, check_value
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["LLMAdapter", "ToolResponseAdapter"]

TEvent = TypeVar("TEvent")


class ToolResponseAdapter(ABC):
    """Turns the response of a tool into messages for a model."""

    @abstractmethod
    async def to_plain_text(self, *, room: "RoomClient", response: Response) -> str:
        """Return the response as a text."""

    @abstractmethod
    async def create_messages(
        self, *, context: AgentChatContext, tool_call: Any, room: "RoomClient", response: Response
    ) -> list[dict[str, Any]]:
        """Return the messages that answer the model's tool call."""


class LLMAdapter(ABC, Generic[TEvent]):
    """A model that continues a conversation and may use tools. `TEvent` is the type of its stream events."""

    @abstractmethod
    def default_model(self) -> str:
        """Return the name of the model that is used when a call names none."""

    def create_chat_context(self) -> AgentChatContext:
        """Return an empty conversation in this adapter's form."""
        return AgentChatContext()

    async def check_for_termination(self, *, context: AgentChatContext, room: "RoomClient") -> bool:
        """Return whether the model's turn is over, asked after each round of tool calls."""
        return True

    @abstractmethod
    async def next(
        self,
        *,
        context: AgentChatContext,
        room: "RoomClient",
        toolkits: Sequence[Toolkit],
        tool_adapter: ToolResponseAdapter | None = None,
        output_schema: Schema | None = None,
        event_handler: Callable[[TEvent], None] | None = None,
        model: str | None = None,
        on_behalf_of: Any = None,
    ) -> Any:
        """Let the model answer, with as many tool calls as it needs, and append everything to the conversation.

        `event_handler` gets the events of the answer as they arrive. `on_behalf_of` is the participant for whom tools are
        called. Returns the text, or the parsed JSON when there is an `output_schema`. Raises LLMError, LLMRefusalError.
        """

    @staticmethod
    def validate(response: Any, output_schema: Schema) -> None:
        """Check the answer. Raises InvalidRequestError that names the field which does not fit the schema."""
        check_value(response, output_schema)
