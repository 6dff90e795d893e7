"""One thread that is open: what participants want of it, one after the other.

Which task runs when: each open thread has one task, `run`. `post` and `interrupt` are called by the bot as messages come in;
they only change what `run` does next. While an answer is made, `run` waits for it in two tasks of its own, which end with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshhost.agents.chat.answer import AnswerWriter
from meshhost.agents.chat.attachments import append_attachments
from meshhost.agents.chat.history import has_been_heard
from meshhost.agents.chat.log import ERROR, INTERRUPTED, NOTICE, ThreadLog, text_of
from meshhost.agents.chat.policy import ChatRequest, compact, explained, judge
from meshhost.errors import LLMError, LLMRefusalError, RoomError
from meshhost.room.participants import RemoteParticipant
from meshhost.tasks import Stopped, Won, first_of, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshhost.agents.chat.bot import ChatBot
    from meshhost.agents.context import AgentChatContext
    from meshhost.documents.document import MeshDocument
    from meshhost.tools.toolkit import Toolkit

__all__ = ["ChatThread", "ChatThreadContext"]

logger = logging.getLogger(__name__)

# For what a client writes into the document beside the message it sends: they come on ways of their own.
ECHO_TIMEOUT = 1.0
CLOSE_TIMEOUT = 4.0
TELL_TIMEOUT = 2.0
# Whoever waits for the end of an answer shall hear of it, also when the connection was lost for a while.
END_TIMEOUT = 30.0
CANCELLED = "(cancelled)"


class ChatThreadContext:
    """A thread as the hooks of a ChatBot see it: conversation, document, path, and who of its members is there."""

    def __init__(
        self,
        *,
        chat: AgentChatContext,
        thread: MeshDocument,
        path: str,
        participants: list[RemoteParticipant] | None = None,
    ) -> None:
        self.chat = chat
        self.thread = thread
        self.path = path
        self.participants = list(participants or ())

    def __repr__(self) -> str:
        return f"<ChatThreadContext {self.path!r} {self.chat!r}>"


class ChatThread:
    """A thread of a bot. `run` ends when nothing was wanted for the bot's `idle_seconds`, or with an error."""

    def __init__(self, bot: ChatBot, path: str) -> None:
        self.path = path
        self._bot = bot
        self._waiting: deque[ChatRequest] = deque()
        self._posted = asyncio.Event()
        self._stop_answer = asyncio.Event()
        self._stop_note = CANCELLED
        self._cancel_next = False
        self._current: ChatRequest | None = None
        self._began = 0.0
        self._is_draining = False
        self._context: ChatThreadContext | None = None
        self._loaded: set[str | None] = set()  # elements the conversation was loaded from
        self._claimed: set[str | None] = set()  # elements whose message we got

    def __repr__(self) -> str:
        return f"<ChatThread {self.path!r} waiting={len(self._waiting)} busy={self._current is not None}>"

    @property
    def is_idle(self) -> bool:
        """Whether nothing is wanted of it."""
        return self._current is None and not self._waiting

    @property
    def is_answering(self) -> bool:
        """Whether a message is being answered, or waits for it."""
        return any(each.kind == "chat" for each in (self._current, *self._waiting) if each is not None)

    @property
    def activity(self) -> str | None:
        """What is done for whom writes in it, in words; None for nothing."""
        if self._current is None:
            return f"opening thread {self.path!r}" if self._context is None else None
        work = "an answer in thread" if self._current.kind == "chat" else "a request for thread"
        return f"{work} {self.path!r} for {self._bot.clock.monotonic() - self._began:.0f} s"

    def post(self, request: ChatRequest) -> str | None:
        """Have this done; returns why not, or None."""
        if request.kind == "clear":
            self._waiting.clear()
            self.interrupt(CANCELLED)
        elif request.kind == "chat":
            verdict = judge(
                self._bot.on_busy,
                is_busy=self.is_answering,
                waiting=len(self._waiting),
                max_waiting=self._bot.max_waiting,
            )
            if verdict == "busy":
                return "the message before is still being answered; send this one again when it is"
            if verdict == "full":
                return f"{len(self._waiting)} messages of this thread wait already; send this one again later"
            if verdict == "interrupt":
                self.interrupt(INTERRUPTED)
        elif len(self._waiting) >= self._bot.max_waiting:
            return None  # nothing is lost with one more `opened`
        self._waiting.append(request)
        self._posted.set()
        return None

    def interrupt(self, note: str) -> None:
        """Stop the answer that is being made, if one is; `note` stands behind it."""
        if self._current is not None and self._current.kind == "chat" and not self._stop_answer.is_set():
            self._stop_note = note
            self._stop_answer.set()

    def cancel(self) -> None:
        """Stop the answer that is being made, or that comes next, because somebody wants it so."""
        if self._current is None and self._waiting:
            self._cancel_next = True
        self.interrupt(CANCELLED)

    @property
    def context(self) -> ChatThreadContext | None:
        """The thread as hooks see it; None before it is open."""
        return self._context

    def drain(self) -> list[ChatRequest]:
        """Take nothing more and end after the answer that is being made; returns what will not be done."""
        self._is_draining = True
        self._posted.set()
        left = list(self._waiting)
        self._waiting.clear()
        return left

    async def run(self) -> None:
        """Open the thread and do what is wanted. Errors are told to whoever waits."""
        try:
            await self._open()
            while (request := await self._next()) is not None:
                self._begin(request)
                try:
                    await self._try(request)
                finally:
                    self._current = None
        except Exception as error:  # noqa: BLE001 - a hook of a program, too: the bot and its other threads go on
            self._log_failure(error)
            await self._refuse_all(explained(error, self._bot.name))
        finally:
            self._bot.forget_thread(self)
            await uninterrupted(self._close(), timeout=CLOSE_TIMEOUT * 2)

    async def _open(self) -> None:
        document = await self._bot.open_thread(path=self.path)
        log = ThreadLog(document)
        await _soon(document, lambda: log.is_ready)
        log.make_ready()
        room, author = self._bot.room, self._author
        log.interrupt_unfinished(author, {each.id for each in room.messaging.get_participants()})
        chat = await self._bot.init_chat_context()
        self._context = ChatThreadContext(chat=chat, thread=document, path=self.path)
        self._context.participants = await self._bot.get_online_participants(thread=document)
        self._loaded = {message.id for message in log.messages()}
        await self._bot.load_thread_context(thread_context=self._context)
        logger.info("opened a chat thread", extra={"document": self.path, "messages": len(self._loaded)})

    async def _close(self) -> None:
        if self._context is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._bot.close_thread(path=self.path)
        except Exception as error:  # noqa: BLE001 - it is closed all the same, whatever a hook of a program raises
            logger.warning("a chat thread was not closed in order", extra={"document": self.path, "reason": str(error)})

    async def _next(self) -> ChatRequest | None:
        """What is to be done now; None when it is time to close."""
        while not self._waiting and not self._is_draining:
            self._posted.clear()
            outcome = await first_of(self._posted.wait(), self._bot.clock.sleep(self._bot.idle_seconds))
            if isinstance(outcome, Stopped):
                break
        if self._waiting and not self._is_draining:
            return self._waiting.popleft()
        # From here on a message gets a thread of its own.
        self._bot.forget_thread(self)
        return None

    def _begin(self, request: ChatRequest) -> None:
        self._current, self._began = request, self._bot.clock.monotonic()
        self._opened().path = request.path  # as whoever asks spells it
        self._stop_answer.clear()
        if self._cancel_next and request.kind == "chat":
            self._cancel_next = False
            self.interrupt(CANCELLED)

    async def _try(self, request: ChatRequest) -> None:
        try:
            await self._do(request)
        except Exception as error:  # noqa: BLE001 - whatever a hook of a program raises: the conversation lives on
            self._log_failure(error)
            await self.refuse(request, explained(error, self._bot.name))

    async def _do(self, request: ChatRequest) -> None:
        context = self._opened()
        context.participants = await self._bot.get_online_participants(thread=context.thread)
        match request.kind:
            case "opened":
                await self._greet(request)
            case "clear":
                ThreadLog(context.thread).clear()
                context.chat = await self._bot.init_chat_context()
                await self._save(request)
            case _:
                await self._answer(request)

    async def _greet(self, request: ChatRequest) -> None:
        greeting, context = self._bot.auto_greet_message, self._opened()
        log = ThreadLog(context.thread)
        if greeting is None or log.messages():
            return
        log.add(greeting, author=self._author)
        context.chat.append_assistant_message(greeting)
        await self._save(request)
        await self._tell([self._sender(request)], "chat", {"text": greeting})

    async def _answer(self, request: ChatRequest) -> None:
        log = ThreadLog(self._opened().thread)
        await self._take_down(request, log)
        writer = AnswerWriter(
            log=log, author=self._author, writer_id=self._bot.room.local_participant.id, clock=self._bot.clock
        )
        try:
            if isinstance(await first_of(self._reply(request, writer), self._stop_answer.wait()), Stopped):
                self._cut(writer, self._stop_note)
            else:
                writer.end()
        except asyncio.CancelledError:
            self._cut(writer, INTERRUPTED)
            raise
        except LLMRefusalError as refusal:
            writer.say(str(refusal))
            writer.end()
        except Exception as error:  # noqa: BLE001 - whatever a hook or adapter raises: the conversation lives on
            self._log_failure(error)
            writer.end(INTERRUPTED if writer.has_text else "")
            log.add(explained(error, self._bot.name), author=self._author, ref=ERROR)
        finally:
            await uninterrupted(self._end_answer(request), timeout=CLOSE_TIMEOUT + END_TIMEOUT + 1)

    async def _reply(self, request: ChatRequest, writer: AnswerWriter) -> None:
        """Let the bot answer; the writer runs meanwhile."""
        outcome = await first_of(self._handle(request, writer), writer.run())
        answer = outcome.result if isinstance(outcome, Won) else None
        if isinstance(answer, str) and answer and not writer.has_text:
            writer.say(answer)

    async def _handle(self, request: ChatRequest, writer: AnswerWriter) -> Any:
        bot, context, sender = self._bot, self._opened(), self._sender(request)
        await bot.on_chat_received(thread_context=context, from_participant=sender, message=dict(request.raw))
        await append_attachments(bot.room, context.chat, request.attachments)
        model = request.model or bot.default_model()
        toolkits: list[Toolkit] = await bot.get_thread_toolkits(thread_context=context, participant=sender)
        toolkits += await bot.make_toolkits(
            thread_context=context, participant=sender, model=model, tools=request.tools
        )
        context.chat.append_rules([rule for toolkit in toolkits for rule in toolkit.all_rules()])
        if compact(context.chat, bot.max_context_chars):
            text = "(The conversation has become too long: I no longer know how it began.)"
            ThreadLog(context.thread).add(text, author=self._author, ref=NOTICE)
        await bot.prepare_llm_context(thread_context=context)
        return await bot.handle_user_message(
            context=context, toolkits=toolkits, model=model, from_user=sender, event_handler=writer.on_event
        )

    async def _take_down(self, request: ChatRequest, log: ThreadLog) -> None:
        """See to it that the message is in the thread, where its sender writes it as a rule, and in the conversation."""
        name = self._sender(request).get_attribute("name")
        await _soon(log.document, lambda: self._claim(request, log, name) is not None)
        found = self._claim(request, log, name)
        if found is None:
            element = log.add(request.text, author=name or "somebody", id=request.id, attachments=request.attachments)
            found = element.id
        self._claimed.add(found)
        chat = self._opened().chat
        if found in self._loaded and has_been_heard(chat, request.text):
            return
        is_alone = len(set(log.members()) - {self._author, name}) == 0
        chat.append_user_message(request.text if is_alone or not name else f"{name}: {request.text}")

    def _claim(self, request: ChatRequest, log: ThreadLog, name: str | None) -> str | None:
        """The element that the sender of the message made for it."""
        for message in reversed(log.messages()):
            author = message.get_attribute("author_name")
            if message.id in self._claimed or (name is not None and author != name):
                continue
            if request.id is not None and message.get_attribute("id") == request.id:
                return message.id
            if request.id is None and author != self._author and text_of(message) == request.text:
                return message.id
        return None

    def _cut(self, writer: AnswerWriter, note: str) -> None:
        """End an answer before its time. The model shall know what it has said."""
        said = writer.unsettled_text
        writer.end(note)
        self._opened().chat.append_assistant_message(f"{said}\n\n{note}" if said else note)

    def _log_failure(self, error: Exception) -> None:
        fields = {"document": self.path, "reason": str(error)}
        if isinstance(error, LLMError | RoomError):
            logger.warning("a chat message was not answered", extra=fields)
        else:
            logger.error("a chat message was not answered", exc_info=error, extra=fields)

    async def _end_answer(self, request: ChatRequest) -> None:
        await self._save(request)
        timeout = TELL_TIMEOUT if self._bot.is_leaving else END_TIMEOUT
        await self._tell(self._audience(request), "thinking", {"thinking": False}, timeout)

    async def _save(self, request: ChatRequest) -> None:
        """Return when the thread is on the server's disk; whoever asked is told when it cannot be."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._bot.room.sync.flush(self.path)
        except (RoomError, TimeoutError) as error:
            reason = str(error) or "the room server did not answer in time"
            logger.warning("a chat thread was not saved", extra={"document": self.path, "reason": reason})
            await self.refuse(request, f"the thread was not saved: {reason}")

    async def refuse(self, request: ChatRequest, reason: str) -> None:
        """Tell its sender that something will not be done."""
        answer = {"path": request.path, "text": reason, "error": True}
        await self._bot.tell([self._sender(request)], "chat", answer, timeout=TELL_TIMEOUT)

    async def _refuse_all(self, reason: str) -> None:
        waiting, self._waiting = list(self._waiting), deque()
        for request in waiting:
            await self.refuse(request, reason)

    def _audience(self, request: ChatRequest) -> list[RemoteParticipant]:
        return _unique([*self._opened().participants, self._sender(request)])

    async def _tell(
        self, to: Iterable[RemoteParticipant], type: str, fields: dict[str, Any], timeout: float = TELL_TIMEOUT
    ) -> None:
        await self._bot.tell(to, type, {"path": self._opened().path, **fields}, timeout=timeout)

    def _sender(self, request: ChatRequest) -> RemoteParticipant:
        # Of who did not enable messaging we have the id, which is all it takes to answer.
        known = self._bot.room.messaging.get_participant(request.sender_id)
        return known or RemoteParticipant(id=request.sender_id)

    @property
    def _author(self) -> str:
        return str(self._bot.room.local_participant.get_attribute("name") or self._bot.name)

    def _opened(self) -> ChatThreadContext:
        if self._context is None:
            raise RoomError(f"thread {self.path!r} is not open")
        return self._context


async def _soon(document: MeshDocument, condition: Callable[[], bool]) -> None:
    """Return when the document is so, at the latest after ECHO_TIMEOUT."""
    changed = asyncio.Event()

    def on_change(*_: Any) -> None:
        changed.set()

    for event in ("inserted", "updated"):
        document.on(event, on_change)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(ECHO_TIMEOUT):
                while not condition():
                    await changed.wait()
                    changed.clear()
    finally:
        for event in ("inserted", "updated"):
            document.off(event, on_change)


def _unique(participants: Iterable[RemoteParticipant]) -> list[RemoteParticipant]:
    return list({each.id: each for each in participants}.values())
