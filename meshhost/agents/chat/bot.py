"""`ChatBot`: an agent that people talk with, in threads that are documents of the room (room-protocol §19).

Participants write into the thread's document and send the bot `chat {path, text}` (also `attachments`, `model`, `tools`).
Three more messages, each with `{path}`, control a thread: `opened` asks for a greeting, `clear` empties it, `cancel` stops
the answer. The answer grows in the document. A request that fails or is refused is answered with a `chat` message with
`error: true`.

The room client calls `_on_message` for each message, on its read loop; that only parses it and posts it to its thread
(`threads.py`). Each open thread runs in a task of its own (`thread.py`) and calls back into the bot for everything that a
program may override (`owner.py`). `drain` lets the answers in progress finish; `stop` cancels the threads, which mark their
answers as interrupted.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.base import SingleRoomAgent
from meshhost.agents.chat.answer import shown_toolkits
from meshhost.agents.chat.attachments import append_attachments
from meshhost.agents.chat.context import ChatThreadContext
from meshhost.agents.chat.history import load_history
from meshhost.agents.chat.log import NOTICE, ThreadLog
from meshhost.agents.chat.owner import ThreadOptions
from meshhost.agents.chat.policy import (
    DECISION_SCHEMA,
    BusyPolicy,
    ChatRequest,
    compact,
    decision_rules,
    parse_request,
)
from meshhost.agents.chat.schema import SCHEMA_NAME, ensure_thread_schema
from meshhost.agents.chat.threads import OpenThreads
from meshhost.agents.chat.tools import ToolkitBuilder, make_toolkits
from meshhost.agents.context import AgentChatContext
from meshhost.clock import Clock, SystemClock
from meshhost.documents.document import MeshDocument
from meshhost.errors import InvalidRequestError, LLMError, RoomError
from meshhost.guard import guarding
from meshhost.room.participants import Participant, RemoteParticipant
from meshhost.room.requirements import RequiredSchema, Requirement
from meshhost.room.services.messaging import RoomMessage
from meshhost.tasks import TaskOwner
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["ChatBot"]

logger = logging.getLogger(__name__)

MAX_CONTEXT_CHARS = 400_000
MAX_THREADS = 64
MAX_WAITING = 16
IDLE_SECONDS = 900.0
# For a client that writes into the document and sends its message: each arrives by its own way.
ECHO_SECONDS = 1.0
STATUS_TIMEOUT = 2.0
TOO_LONG = "(The conversation has become too long: I no longer know how it began.)"


class ChatBot(SingleRoomAgent):
    """Answers in threads, each a conversation of its own; within a thread one message after the other.

    `client_rules` are further rules, by the sender's attribute `client`. `auto_greet_message` is said when a participant
    opens an empty thread. `decision_model` decides whether the bot is meant where several people talk. `on_busy` says what
    happens to a message that arrives while the one before is being answered: `queue` it, `interrupt` that answer, or
    `reject` it. A conversation longer than `max_context_chars` loses its oldest turns. At most `max_threads` are open at
    once, each with at most `max_waiting` waiting messages; a thread that was idle for `idle_seconds` is closed, and loaded
    again at the next message. `echo_seconds` is how long a message waits for its element in the document before the bot
    adds one. The settings of threads are kept in `thread_options`.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
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
        echo_seconds: float = ECHO_SECONDS,
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
        self.thread_options = ThreadOptions(
            greeting=auto_greet_message,
            on_busy=on_busy,
            max_context_chars=max_context_chars,
            max_waiting=max_waiting,
            idle_seconds=idle_seconds,
            echo_seconds=echo_seconds,
            clock=clock or SystemClock(),
        )
        self._tasks = TaskOwner(f"chat bot {self.name}")
        self._threads = OpenThreads(self, tasks=self._tasks, max_threads=max_threads)
        self._is_draining = False

    def init_requirements(self, requires: list[Requirement]) -> None:
        """Add the schema of threads, which the bot itself stores in the room when it is missing."""
        has_schema = any(isinstance(each, RequiredSchema) and each.name == SCHEMA_NAME for each in requires)
        super().init_requirements(requires if has_schema else [*requires, RequiredSchema(name=SCHEMA_NAME)])

    async def install_requirements(self, participant_id: str | None = None) -> None:
        """Store the schema of threads, then do as SingleRoomAgent does."""
        await ensure_thread_schema(self.room)
        await super().install_requirements(participant_id)

    @property
    def open_threads(self) -> OpenThreads:
        """The open threads, for programs and tests that look into the bot."""
        return self._threads

    @property
    def activity(self) -> str | None:
        """The answers in progress, one of them with its thread and duration."""
        return self._threads.activity

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to answer messages."""
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
        """Accept no further message, and return when the answers in progress are done. The caller must set a timeout."""
        self._is_draining = True
        for thread, request in self._threads.drain():
            self._tasks.spawn(thread.refuse(request, self._leaving()), name="refusal")
        await self._tasks.wait()

    async def stop(self) -> None:
        """Cancel the answers in progress, which are then marked as interrupted. Idempotent."""
        if self._room is None:
            return
        self._is_draining = True
        self._room.messaging.off("message", self._on_message)
        if await self._tasks.stop(timeout=self.stop_seconds):
            logger.warning("threads did not end in time", extra={"agent": self.name})
        self._threads.clear()
        await super().stop()

    # Hooks that a program may override.

    async def init_chat_context(self) -> AgentChatContext:
        """Return the conversation a thread begins with, in the model adapter's form and with the rules."""
        context = self._llm_adapter.create_chat_context()
        context.append_rules(self._rules)
        return context

    async def open_thread(self, *, path: str) -> MeshDocument:
        """Open and return the thread's document.

        Raises NotFoundError when there is no document or no schema for it, InvalidRequestError.
        """
        return await self.room.sync.open(path=path, create=False)

    async def close_thread(self, *, path: str) -> None:
        """Undo `open_thread`."""
        await self.room.sync.close(path=path)

    async def load_thread_context(self, *, thread_context: ChatThreadContext) -> None:
        """Add the messages of the document to the conversation; of a long thread only the last ones."""
        own = self.room.local_participant.get_attribute("name")
        load_history(
            thread_context.chat, thread_context.thread, own=own, max_chars=self.thread_options.max_context_chars // 2
        )

    async def prepare_llm_context(self, *, thread_context: ChatThreadContext) -> None:
        """Called before the model is asked; does nothing by default."""

    async def get_rules(self, *, thread_context: ChatThreadContext, participant: RemoteParticipant) -> list[str]:
        """Return the rules for an answer to this participant."""
        client = participant.get_attribute("client")
        return [*self._rules, *self._client_rules.get(str(client), ())]

    async def get_thread_toolkit_builders(
        self, *, thread_context: ChatThreadContext, participant: RemoteParticipant
    ) -> list[ToolkitBuilder]:
        """Return the toolkits that a message of this participant may ask for by name in `tools`; none by default."""
        return []

    async def get_thread_toolkits(
        self, *, thread_context: ChatThreadContext, participant: RemoteParticipant
    ) -> list[Toolkit]:
        """Return the toolkits for an answer to this participant: those required in the room, and the bot's own."""
        context = ToolContext(room=self.room, caller=self.room.local_participant, on_behalf_of=participant)
        return [*await self.get_required_toolkits(context), *self._toolkits]

    def get_thread_members(self, *, thread: MeshDocument) -> list[str]:
        """Return the names of the thread's members."""
        return ThreadLog(thread).members()

    async def get_online_participants(
        self, *, thread: MeshDocument, exclude: Sequence[Participant] | None = None
    ) -> list[RemoteParticipant]:
        """Return the members of the thread who are in the room now, without `exclude`."""
        members, left_out = set(self.get_thread_members(thread=thread)), {each.id for each in exclude or ()}
        return [
            each
            for each in self.room.messaging.get_participants()
            if each.get_attribute("name") in members and each.id not in left_out
        ]

    async def on_chat_received(
        self, *, thread_context: ChatThreadContext, from_participant: RemoteParticipant, message: dict[str, Any]
    ) -> None:
        """Called with each `chat` message, which is in the conversation already; sets the rules by default."""
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
        """Let the model answer. Returns its text, or None when the message is not meant for the bot."""
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
        """Return whether the message is meant for the bot: yes with one other member, else the model decides."""
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
            # When the model cannot decide, an answer too many is better than none.
            logger.warning("whether to reply was not decided", extra={"document": context.path, "reason": str(error)})
            return True

    # For its threads: see ThreadOwner.

    async def answer(
        self,
        *,
        context: ChatThreadContext,
        request: ChatRequest,
        sender: RemoteParticipant,
        event_handler: Callable[[Any], None],
    ) -> Any:
        """Answer a `chat` message: run the hooks, add attachments and toolkits, shorten the conversation, ask the model."""
        await self.on_chat_received(thread_context=context, from_participant=sender, message=dict(request.raw))
        await append_attachments(self.room, context.chat, request.attachments)
        model = request.model or self._llm_adapter.default_model()
        toolkits: list[Toolkit] = await self.get_thread_toolkits(thread_context=context, participant=sender)
        if request.tools:
            builders = await self.get_thread_toolkit_builders(thread_context=context, participant=sender)
            toolkits += await make_toolkits(builders, request.tools, model=model)
        context.chat.append_rules([rule for toolkit in toolkits for rule in toolkit.all_rules()])
        if compact(context.chat, self.thread_options.max_context_chars):
            author = str(self.room.local_participant.get_attribute("name") or self.name)
            ThreadLog(context.thread).add(TOO_LONG, author=author, ref=NOTICE)
        await self.prepare_llm_context(thread_context=context)
        return await self.handle_user_message(
            context=context, toolkits=toolkits, model=model, from_user=sender, event_handler=event_handler
        )

    @property
    def is_leaving(self) -> bool:
        """Whether the bot accepts no further messages."""
        return self._is_draining

    def forget_thread(self, path: str, thread: object) -> None:
        """Stop passing requests to this thread; the next one for its path opens another."""
        self._threads.forget(path, thread)

    async def tell(
        self, to: Iterable[RemoteParticipant], type: str, message: dict[str, Any], *, timeout: float = STATUS_TIMEOUT
    ) -> None:
        """Send a message to these participants, for at most `timeout` seconds; one that has left is skipped."""
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
                if (thread := self._threads.find(message.message.get("path"))) is not None:
                    thread.cancel()
            case "get_thread_toolkit_builders":
                self._tasks.spawn(self._list_builders(message), name="toolkit builders")
            case _:
                pass  # `typing`, and messages for other agents

    def _take(self, message: RoomMessage) -> None:
        try:
            request = parse_request(message.type, message.from_participant_id, message.message)
            refusal = self._leaving() if self._is_draining else self._threads.post(request)
        except InvalidRequestError as error:
            refusal = str(error)
        if refusal is not None:
            sender = RemoteParticipant(id=message.from_participant_id)
            answer = {"path": message.message.get("path"), "text": refusal, "error": True}
            self._tasks.spawn(self.tell([sender], "chat", answer), name="refusal")

    async def _list_builders(self, message: RoomMessage) -> None:
        path = str(message.message.get("path"))
        thread = self._threads.find(path)
        context = None if thread is None else thread.context
        sender = self.room.messaging.get_participant(message.from_participant_id)
        if context is None or sender is None:
            return
        try:
            with guarding():
                builders = await self.get_thread_toolkit_builders(thread_context=context, participant=sender)
        except Exception:  # a program's hook may raise anything: the sender gets no answer, the bot goes on
            logger.exception("toolkits of a thread not listed", extra={"document": path})
            return
        names = [{"name": builder.name} for builder in builders]
        await self.tell([sender], "set_thread_tool_providers", {"path": path, "tool_providers": names})

    def _leaving(self) -> str:
        return f"{self.name!r} is about to leave; send this message again soon"
