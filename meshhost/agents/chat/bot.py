"""`ChatBot`: an agent that people talk with, in threads that are documents of the room (room-protocol §19).

Participants write what they say into the thread, and send the bot `chat {path, text}` (also `attachments`, `model`, `tools`);
`opened`, `clear` and `cancel`, each with `{path}`, do what they say. The answer grows in the thread. What cannot be done is
told to whoever asked by a `chat` message with `error`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.agent import SingleRoomAgent
from meshhost.agents.chat.answer import shown_toolkits
from meshhost.agents.chat.history import load_history
from meshhost.agents.chat.log import ThreadLog
from meshhost.agents.chat.policy import DECISION_SCHEMA, BusyPolicy, ChatRequest, decision_rules, parse_request
from meshhost.agents.chat.thread import ChatThread, ChatThreadContext
from meshhost.agents.chat.tools import ToolkitBuilder, make_toolkits
from meshhost.agents.context import AgentChatContext
from meshhost.agents.thread_schema import SCHEMA_NAME, ensure_thread_schema
from meshhost.clock import Clock, SystemClock
from meshhost.documents.document import MeshDocument
from meshhost.errors import InvalidRequestError, LLMError, RoomError
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.requirements import RequiredSchema, Requirement
from meshhost.room.services.messaging import RoomMessage
from meshhost.tasks import TaskOwner
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["ChatBot", "ChatThreadContext"]

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 15.0
MAX_CONTEXT_CHARS = 400_000
MAX_THREADS = 64
MAX_WAITING = 16
IDLE_SECONDS = 900.0
STATUS_TIMEOUT = 2.0


class ChatBot(SingleRoomAgent):
    """Answers in threads, each a conversation of its own; within a thread one message after the other.

    `client_rules` are further rules by the attribute `client` of who writes. `auto_greet_message` is said when somebody opens
    a thread that is empty. `decision_model` decides, where several people talk, whether the bot is meant. `on_busy` says what
    becomes of a message that comes while the one before is being answered. A conversation over `max_context_chars` loses its
    oldest turns. At most `max_threads` are open at once, each with `max_waiting` messages; one in which nothing happened for
    `idle_seconds` is closed, and loaded again when somebody writes.
    """

    def __init__(
        self,
        *,
        name: str,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        llm_adapter: LLMAdapter[Any],
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        rules: Sequence[str] | None = None,
        client_rules: Mapping[str, Sequence[str]] | None = None,
        auto_greet_message: str | None = None,
        empty_state_title: str | None = None,
        labels: Sequence[str] | None = None,
        decision_model: str | None = None,
        on_busy: BusyPolicy = "queue",
        max_context_chars: int = MAX_CONTEXT_CHARS,
        max_threads: int = MAX_THREADS,
        max_waiting: int = MAX_WAITING,
        idle_seconds: float = IDLE_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        self._llm_adapter = llm_adapter
        self._tool_adapter = tool_adapter
        self._toolkits = list(toolkits or ())
        self._rules = list(rules or ())
        self._client_rules = {client: list(own) for client, own in (client_rules or {}).items()}
        self._empty_state_title = "How can I help you?" if empty_state_title is None else empty_state_title
        self._decision_model = decision_model
        self.auto_greet_message = auto_greet_message
        self.on_busy: BusyPolicy = on_busy
        self.max_context_chars = max_context_chars
        self.max_waiting = max_waiting
        self.idle_seconds = idle_seconds
        self.clock = clock or SystemClock()
        self._max_threads = max_threads
        self._threads: dict[str, ChatThread] = {}  # the one used last is last
        self._tasks = TaskOwner(f"chat bot {name}")
        self._is_draining = False

    def init_requirements(self, requires: list[Requirement]) -> None:
        """The schema of threads is required, too; the bot itself stores it where it is missing."""
        has_schema = any(isinstance(each, RequiredSchema) and each.name == SCHEMA_NAME for each in requires)
        super().init_requirements(requires if has_schema else [*requires, RequiredSchema(name=SCHEMA_NAME)])

    async def install_requirements(self, participant_id: str | None = None) -> None:
        """See SingleRoomAgent."""
        await ensure_thread_schema(self.room)
        await super().install_requirements(participant_id)

    @property
    def activity(self) -> str | None:
        """The answers in work, one of them by its thread."""
        busy = [text for thread in self._threads.values() if (text := thread.activity) is not None]
        if not busy:
            return None
        return busy[0] if len(busy) == 1 else f"{busy[0]}; {len(busy) - 1} more threads"

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to answer."""
        await super().start(room=room)
        self._is_draining = False
        room.messaging.on("message", self._on_message)
        try:
            await room.local_participant.set_attribute("empty_state_title", self._empty_state_title)
            await room.messaging.enable()
        except BaseException:
            await self.stop()
            raise

    async def drain(self) -> None:
        """Take no further message, and return when the answers in work are done. Whoever calls bounds the wait."""
        self._is_draining = True
        for thread in list(self._threads.values()):
            for request in thread.drain():
                self._tasks.spawn(thread.refuse(request, self._leaving()), name="refusal")
        await self._tasks.wait()

    async def stop(self) -> None:
        """End at once; answers in work are shown as interrupted. Idempotent."""
        if self._room is None:
            return
        self._is_draining = True
        self._room.messaging.off("message", self._on_message)
        if await self._tasks.stop(timeout=STOP_TIMEOUT):
            logger.warning("threads did not end in time", extra={"agent": self.name})
        self._threads.clear()
        await super().stop()

    # What a program may override.

    async def init_chat_context(self) -> AgentChatContext:
        """The conversation a thread begins with: of the model's kind, with the rules."""
        context = self._llm_adapter.create_chat_context()
        context.append_rules(self._rules)
        return context

    async def open_thread(self, *, path: str) -> MeshDocument:
        """The thread's document. Raises NotFoundError without one or without its schema, InvalidRequestError."""
        return await self.room.sync.open(path=path, create=False)

    async def close_thread(self, *, path: str) -> None:
        """Undo `open_thread`."""
        await self.room.sync.close(path=path)

    async def load_thread_context(self, *, thread_context: ChatThreadContext) -> None:
        """Let the conversation begin with what the thread says; of a long one with its end."""
        own = self.room.local_participant.get_attribute("name")
        load_history(thread_context.chat, thread_context.thread, own=own, max_chars=self.max_context_chars // 2)

    async def prepare_llm_context(self, *, thread_context: ChatThreadContext) -> None:
        """Called before the model is asked; by default nothing."""

    async def get_rules(self, *, thread_context: ChatThreadContext, participant: RemoteParticipant) -> list[str]:
        """The rules for an answer to this participant."""
        client = participant.get_attribute("client")
        return [*self._rules, *self._client_rules.get(str(client), ())]

    async def get_thread_toolkit_builders(
        self, *, thread_context: ChatThreadContext, participant: RemoteParticipant
    ) -> list[ToolkitBuilder]:
        """What a message of this participant may ask for under `tools`; by default nothing."""
        return []

    async def get_thread_toolkits(
        self, *, thread_context: ChatThreadContext, participant: RemoteParticipant
    ) -> list[Toolkit]:
        """The toolkits for an answer to this participant: those required in the room, and the bot's own."""
        context = ToolContext(room=self.room, caller=self.room.local_participant, on_behalf_of=participant)
        return [*await self.get_required_toolkits(context), *self._toolkits]

    def get_thread_members(self, *, thread: MeshDocument) -> list[str]:
        """The names of those who take part in the thread."""
        return ThreadLog(thread).members()

    async def get_online_participants(
        self, *, thread: MeshDocument, exclude: Sequence[Participant] | None = None
    ) -> list[RemoteParticipant]:
        """The members of the thread who are in the room now."""
        members, left_out = set(self.get_thread_members(thread=thread)), {each.id for each in exclude or ()}
        return [
            each
            for each in self.room.messaging.get_participants()
            if each.get_attribute("name") in members and each.id not in left_out
        ]

    async def on_chat_received(
        self, *, thread_context: ChatThreadContext, from_participant: RemoteParticipant, message: dict[str, Any]
    ) -> None:
        """Called with each `chat` message, which is in the conversation already; by default sets the rules."""
        rules = await self.get_rules(thread_context=thread_context, participant=from_participant)
        thread_context.chat.replace_rules(rules)

    async def handle_user_message(
        self,
        *,
        context: ChatThreadContext,
        toolkits: list[Toolkit],
        model: str,
        from_user: RemoteParticipant,
        event_handler: Callable[[Any], None] | None = None,
    ) -> Any:
        """Let the model answer. Returns what it said, or None when the bot is not meant."""
        members = set(self.get_thread_members(thread=context.thread))
        own = self.room.local_participant.get_attribute("name")
        await self._tell_status(context, from_user, "listening", True)
        try:
            is_meant = await self.should_reply(
                context=context,
                has_more_than_one_other_user=bool(members - {own, from_user.get_attribute("name")}),
                toolkits=toolkits,
                from_user=from_user,
                online=list(context.participants),
            )
        finally:
            await self._tell_status(context, from_user, "listening", False)
        if not is_meant:
            return None
        await self._tell_status(context, from_user, "thinking", True)
        return await self._llm_adapter.next(
            context=context.chat,
            room=self.room,
            toolkits=shown_toolkits(toolkits, ThreadLog(context.thread)),
            tool_adapter=self._tool_adapter,
            event_handler=event_handler,
            model=model,
            on_behalf_of=from_user,
        )

    async def should_reply(
        self,
        *,
        context: ChatThreadContext,
        has_more_than_one_other_user: bool,
        toolkits: list[Toolkit],
        from_user: RemoteParticipant,
        online: list[Participant],
    ) -> bool:
        """Whether the bot is meant: always by the only other one; among several the model decides."""
        if not has_more_than_one_other_user:
            return True
        own, user = (each.get_attribute("name") for each in (self.room.local_participant, from_user))
        chat = context.chat.copy()
        chat.replace_rules(decision_rules(own, user, self.get_thread_members(thread=context.thread)))
        try:
            decision = await self._llm_adapter.next(
                context=chat, room=self.room, toolkits=[], output_schema=DECISION_SCHEMA, model=self._decision_model
            )
            return bool(decision["expecting_assistant_reply"])
        except (LLMError, TypeError, KeyError) as error:
            # A model that cannot decide: better to be heard too often than never.
            logger.warning("whether to reply was not decided", extra={"document": context.path, "reason": str(error)})
            return True

    # For its threads.

    def default_model(self) -> str:
        """The model of an answer when the message names none."""
        return self._llm_adapter.default_model()

    async def make_toolkits(
        self,
        *,
        thread_context: ChatThreadContext,
        participant: RemoteParticipant,
        model: str,
        tools: Sequence[Mapping[str, Any]],
    ) -> list[Toolkit]:
        """The toolkits a message asks for. Raises InvalidRequestError."""
        if not tools:
            return []
        builders = await self.get_thread_toolkit_builders(thread_context=thread_context, participant=participant)
        return await make_toolkits(builders, tools, model=model)

    @property
    def is_leaving(self) -> bool:
        """Whether the bot takes no further messages."""
        return self._is_draining

    def forget_thread(self, thread: ChatThread) -> None:
        """From now on a message for its path opens the thread anew."""
        if self._threads.get(thread.path) is thread:
            del self._threads[thread.path]

    async def tell(
        self, to: Iterable[RemoteParticipant], type: str, message: dict[str, Any], *, timeout: float = STATUS_TIMEOUT
    ) -> None:
        """Send to those who are there, waiting at most `timeout` seconds; who left meanwhile misses nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for participant in to:
                    with suppress(RoomError):
                        await self.room.messaging.send_message(to=participant, type=type, message=message)

    async def _tell_status(self, context: ChatThreadContext, sender: RemoteParticipant, type: str, value: bool) -> None:
        audience = {each.id: each for each in (*context.participants, sender)}
        await self.tell(audience.values(), type, {type: value, "path": context.path})

    def _on_message(self, message: RoomMessage) -> None:
        match message.type:
            case "chat" | "opened" | "clear":
                self._take(message)
            case "cancel":
                thread = self._threads.get(_key(message.message.get("path")))
                if thread is not None:
                    thread.cancel()
            case "get_thread_toolkit_builders":
                self._tasks.spawn(self._list_builders(message), name="toolkit builders")
            case _:
                pass  # `typing`, and what is meant for others

    def _take(self, message: RoomMessage) -> None:
        path = message.message.get("path")
        try:
            request = parse_request(message.type, message.from_participant_id, message.message)
        except InvalidRequestError as error:
            reason = str(error)
        else:
            refusal = self._post(request)
            if refusal is None:
                return
            reason = refusal
        sender = RemoteParticipant(id=message.from_participant_id)
        answer = {"path": path, "text": reason, "error": True}
        self._tasks.spawn(self.tell([sender], "chat", answer), name="refusal")

    def _post(self, request: ChatRequest) -> str | None:
        """Give it to its thread; returns why not, or None."""
        if self._is_draining:
            return self._leaving()
        path = _key(request.path)
        thread = self._threads.pop(path, None)
        is_new = thread is None
        if thread is None:
            if len(self._threads) >= self._max_threads and not self._close_one():
                return f"{len(self._threads)} threads of {self.name!r} are busy; send this message again later"
            thread = ChatThread(self, path)
        self._threads[path] = thread
        refusal = thread.post(request)
        if is_new:
            self._tasks.spawn(thread.run(), name=f"thread {path}")
        return refusal

    def _close_one(self) -> bool:
        """Close the thread that was idle for longest; returns whether there is one."""
        idle = next((thread for thread in self._threads.values() if thread.is_idle), None)
        if idle is not None:
            self.forget_thread(idle)
            idle.drain()
        return idle is not None

    async def _list_builders(self, message: RoomMessage) -> None:
        path = str(message.message.get("path"))
        thread = self._threads.get(_key(path))
        context = None if thread is None else thread.context
        sender = self.room.messaging.get_participant(message.from_participant_id)
        if context is None or sender is None:
            return
        try:
            builders = await self.get_thread_toolkit_builders(thread_context=context, participant=sender)
        except Exception:  # a program's hook: who asked gets no answer, the bot goes on
            logger.exception("toolkits of a thread not listed", extra={"document": path})
            return
        names = [{"name": builder.name} for builder in builders]
        await self.tell([sender], "set_thread_tool_providers", {"path": path, "tool_providers": names})

    def _leaving(self) -> str:
        return f"{self.name!r} is about to leave; send this message again soon"


def _key(path: Any) -> str:
    # As the room server has it: these slashes do not count.
    return str(path).strip("/")
