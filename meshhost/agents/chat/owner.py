"""What a thread needs of the bot it belongs to: `ThreadOwner`, and the settings that all threads of a bot share.

ChatBot creates ChatThreads and ChatThreads call back into the bot: this Protocol is the seam between the two, so that
`thread.py` does not import `bot.py`. Most members are the hooks that programs override in a ChatBot. `answer` is the one that
asks the model; everything around it (the order of messages, cancelling, saving, telling people) is the thread's own work.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from meshhost.agents.chat.context import ChatThreadContext
from meshhost.agents.chat.policy import BusyPolicy, ChatRequest
from meshhost.agents.context import AgentChatContext
from meshhost.clock import Clock, SystemClock
from meshhost.documents.document import MeshDocument
from meshhost.room.participants import RemoteParticipant

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["ThreadOptions", "ThreadOwner"]


@dataclass(slots=True)
class ThreadOptions:
    """The settings of a bot's threads; see ChatBot. May be changed while threads are open: they read them at each use.

    `greeting` is the text said when a participant opens an empty thread. `echo_seconds` bounds the wait for what a client
    writes into the document beside its message, since the two arrive by different ways.
    """

    greeting: str | None = None
    on_busy: BusyPolicy = "queue"
    max_context_chars: int = 400_000
    max_waiting: int = 16
    idle_seconds: float = 900.0
    echo_seconds: float = 1.0
    clock: Clock = field(default_factory=SystemClock)


class ThreadOwner(Protocol):
    """The bot, as its threads see it."""

    thread_options: ThreadOptions

    @property
    def name(self) -> str:
        """The bot's name."""
        ...

    @property
    def room(self) -> "RoomClient":
        """The room. Raises RoomError when the bot is not started."""
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether the bot accepts no further messages."""
        ...

    async def open_thread(self, *, path: str) -> MeshDocument:
        """Open the thread's document."""
        ...

    async def close_thread(self, *, path: str) -> None:
        """Undo `open_thread`."""
        ...

    async def init_chat_context(self) -> AgentChatContext:
        """Return the conversation that a thread begins with."""
        ...

    async def load_thread_context(self, *, thread_context: ChatThreadContext) -> None:
        """Add what the thread's document says to the conversation."""
        ...

    async def get_online_participants(self, *, thread: MeshDocument) -> list[RemoteParticipant]:
        """Return the members of the thread who are in the room now."""
        ...

    async def answer(
        self,
        *,
        context: ChatThreadContext,
        request: ChatRequest,
        sender: RemoteParticipant,
        event_handler: Callable[[Any], None],
    ) -> Any:
        """Answer a `chat` message that is in the conversation already. Returns what the model said, or None."""
        ...

    async def tell(
        self, to: Iterable[RemoteParticipant], type: str, message: dict[str, Any], *, timeout: float
    ) -> None:
        """Send a message to these participants within `timeout` seconds; failures are ignored."""
        ...

    def forget_thread(self, path: str, thread: object) -> None:
        """Stop passing requests to this thread; the next one for its path opens another."""
        ...
