"""What an agent needs of a model, whoever makes it."""

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
    """Turns what a tool returned into something a model reads."""

    @abstractmethod
    async def to_plain_text(self, *, room: "RoomClient", response: Response) -> str:
        """The response as a text."""

    @abstractmethod
    async def create_messages(
        self, *, context: AgentChatContext, tool_call: Any, room: "RoomClient", response: Response
    ) -> list[dict[str, Any]]:
        """The messages that answer the model's tool call."""


class LLMAdapter(ABC, Generic[TEvent]):
    """A model that continues a conversation, using tools."""

    @abstractmethod
    def default_model(self) -> str:
        """The model used when a call names none."""

    def create_chat_context(self) -> AgentChatContext:
        """An empty conversation in the form this adapter takes."""
        return AgentChatContext()

    async def check_for_termination(self, *, context: AgentChatContext, room: "RoomClient") -> bool:
        """Whether the model has the last word in the conversation, so that its turn is over."""
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
        """Let the model answer, calling tools as it likes, and append all of it to the conversation.

        Returns the text, or the parsed JSON when there is an `output_schema`. Raises LLMError, LLMRefusalError.
        """

    @staticmethod
    def validate(response: Any, output_schema: Schema) -> None:
        """Raises InvalidRequestError naming the field in which the answer does not fit the schema."""
        check_value(response, output_schema)
