"""`ChatThread`: one open thread, whose requests are done one after the other.

The bot makes a thread for the first message of a path, calls `post` for each request and runs `run` as a task. `run` opens
the document, does the requests in order (`chat` is answered; `opened` greets; `clear` empties the thread), and closes the
thread when none came for `idle_seconds`.

Which task runs what: each open thread has one task, `run`. `post`, `interrupt`, `cancel` and `drain` are plain functions
that the bot calls between its steps; they only change what `run` does next. While an answer is made, `run` waits for two
tasks of its own (the bot's `answer` and the AnswerWriter); both have ended when the answer has, however it ended.
Cancelling `run` is allowed at any time: the answer is then marked as interrupted and the document saved.

Invariants: every request is done or refused with a reason; a client that saw `thinking: true` also sees `thinking: false`;
and a turn that the model's provider refuses does not stay in the conversation, where it would be refused with each later
message too.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

from meshhost.agents.chat.answer import AnswerWriter
from meshhost.agents.chat.claims import MessageClaims, wait_for_document
from meshhost.agents.chat.context import ChatThreadContext
from meshhost.agents.chat.history import ends_with
from meshhost.agents.chat.log import ERROR, INTERRUPTED, ThreadLog
from meshhost.agents.chat.owner import ThreadOwner
from meshhost.agents.chat.policy import LEFT_OUT, REFUSED, ChatRequest, explained, is_refused, judge
from meshhost.agents.context import Checkpoint
from meshhost.errors import LLMError, LLMRefusalError, RoomError
from meshhost.guard import guarded, guarding
from meshhost.room.participants import RemoteParticipant
from meshhost.tasks import Stopped, Won, first_of, uninterrupted

__all__ = ["ChatThread"]

logger = logging.getLogger(__name__)

# Seconds to save or close a document.
CLOSE_TIMEOUT = 4.0
TELL_TIMEOUT = 2.0
# A client shows that the bot is thinking until it is told that the answer has ended: long enough to survive a reconnect.
END_TIMEOUT = 30.0
CANCELLED = "(cancelled)"


class ChatThread:
    """A thread of a bot. `run` ends when there was no request for `idle_seconds`, or with an error."""

    def __init__(self, owner: ThreadOwner, path: str) -> None:
        self.path = path
        self._owner = owner
        self._waiting: deque[ChatRequest] = deque()
        self._posted = asyncio.Event()
        self._stop_answer = asyncio.Event()
        self._stop_note = CANCELLED  # what is written behind the answer that `_stop_answer` stops
        self._cancel_next = False
        self._current: ChatRequest | None = None
        self._began = 0.0  # when `_current` began, on the owner's clock
        self._is_draining = False
        self._context: ChatThreadContext | None = None
        self._claims = MessageClaims()
        self._was_refused = False  # whether the provider refused the turn before

    def __repr__(self) -> str:
        return f"<ChatThread {self.path!r} waiting={len(self._waiting)} busy={self._current is not None}>"

    @property
    def is_idle(self) -> bool:
        """Whether no request is in progress or waiting."""
        return self._current is None and not self._waiting

    @property
    def is_answering(self) -> bool:
        """Whether a `chat` message is being answered or waits."""
        return any(each.kind == "chat" for each in (self._current, *self._waiting) if each is not None)

    @property
    def activity(self) -> str | None:
        """The request in progress, in words; None when there is none."""
        if self._current is None:
            return f"opening thread {self.path!r}" if self._context is None else None
        work = "an answer in thread" if self._current.kind == "chat" else "a request for thread"
        return f"{work} {self.path!r} for {self._owner.thread_options.clock.monotonic() - self._began:.0f} s"

    @property
    def context(self) -> ChatThreadContext | None:
        """The thread as hooks see it; None before it is open."""
        return self._context

    def post(self, request: ChatRequest) -> str | None:
        """Accept a request; return the reason when it is refused, else None."""
        max_waiting = self._owner.thread_options.max_waiting
        if request.kind == "clear":
            self._waiting.clear()
            self.interrupt(CANCELLED)
        elif request.kind == "chat":
            verdict = judge(
                self._owner.thread_options.on_busy,
                is_busy=self.is_answering,
                waiting=len(self._waiting),
                max_waiting=max_waiting,
            )
            if verdict == "busy":
                return "the message before is still being answered; send this one again when it is"
            if verdict == "full":
                return f"{len(self._waiting)} messages of this thread wait already; send this one again later"
            if verdict == "interrupt":
                self.interrupt(INTERRUPTED)
        elif len(self._waiting) >= max_waiting:
            return None  # dropping a further `opened` loses nothing
        self._waiting.append(request)
        self._posted.set()
        return None

    def interrupt(self, note: str) -> None:
        """Stop the answer in progress, if there is one, and write `note` behind it."""
        if self._current is not None and self._current.kind == "chat" and not self._stop_answer.is_set():
            self._stop_note = note
            self._stop_answer.set()

    def cancel(self) -> None:
        """Stop the answer in progress or, before it has begun, the next one, because a participant asks for it."""
        if self._current is None and self._waiting:
            self._cancel_next = True
        self.interrupt(CANCELLED)

    def drain(self) -> list[ChatRequest]:
        """Accept nothing more and end after the answer in progress; return the requests that will not be done."""
        self._is_draining = True
        self._posted.set()
        left = list(self._waiting)
        self._waiting.clear()
        return left

    async def refuse(self, request: ChatRequest, reason: str) -> None:
        """Tell its sender that a request will not be done."""
        answer = {"path": request.path, "text": reason, "error": True}
        await self._owner.tell([self._sender(request)], "chat", answer, timeout=TELL_TIMEOUT)

    async def run(self) -> None:
        """Open the thread, do its requests and close it. Errors are sent to those whose requests wait."""
        try:
            with guarding():
                await self._open()
            while (request := await self._next()) is not None:
                self._begin(request)
                try:
                    await self._try(request)
                finally:
                    self._current = None
        except Exception as error:  # noqa: BLE001 - a program's hook may raise anything: the bot and its other threads go on
            self._log_failure(error)
            waiting, self._waiting = list(self._waiting), deque()
            for request in waiting:
                await self.refuse(request, explained(error, self._owner.name))
        finally:
            self._owner.forget_thread(self.path, self)
            await uninterrupted(self._close(), timeout=CLOSE_TIMEOUT * 2)

    async def _open(self) -> None:
        owner = self._owner
        document = await owner.open_thread(path=self.path)
        log = ThreadLog(document)
        await wait_for_document(document, lambda: log.is_ready, owner.thread_options.echo_seconds)
        log.make_ready()
        log.interrupt_unfinished(self._author, {each.id for each in owner.room.messaging.get_participants()})
        self._context = ChatThreadContext(chat=await owner.init_chat_context(), thread=document, path=self.path)
        self._context.participants = await owner.get_online_participants(thread=document)
        count = self._claims.load(log)
        await owner.load_thread_context(thread_context=self._context)
        logger.info("opened a chat thread", extra={"document": self.path, "messages": count})

    async def _close(self) -> None:
        if self._context is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                with guarding():
                    await self._owner.close_thread(path=self.path)
        except Exception as error:  # noqa: BLE001 - a program's hook may raise anything; the thread has ended all the same
            logger.warning("a chat thread was not closed in order", extra={"document": self.path, "reason": str(error)})

    async def _next(self) -> ChatRequest | None:
        """Wait for the next request; None when it is time to close."""
        options = self._owner.thread_options
        while not self._waiting and not self._is_draining:
            self._posted.clear()
            outcome = await first_of(self._posted.wait(), options.clock.sleep(options.idle_seconds))
            if isinstance(outcome, Stopped):
                break
        if self._waiting and not self._is_draining:
            return self._waiting.popleft()
        # Before anything else is awaited: a message that comes from now on must get a thread of its own.
        self._owner.forget_thread(self.path, self)
        return None

    def _begin(self, request: ChatRequest) -> None:
        self._current, self._began = request, self._owner.thread_options.clock.monotonic()
        self._opened().path = request.path  # clients compare paths literally: use the sender's spelling
        self._stop_answer.clear()
        if self._cancel_next and request.kind == "chat":
            self._cancel_next = False
            self.interrupt(CANCELLED)

    async def _try(self, request: ChatRequest) -> None:
        try:
            with guarding():
                await self._do(request)
        except Exception as error:  # noqa: BLE001 - a program's hook may raise anything: the conversation goes on
            self._log_failure(error)
            await self.refuse(request, explained(error, self._owner.name))

    async def _do(self, request: ChatRequest) -> None:
        context = self._opened()
        context.participants = await self._owner.get_online_participants(thread=context.thread)
        match request.kind:
            case "opened":
                await self._greet(request)
            case "clear":
                ThreadLog(context.thread).clear()
                context.chat = await self._owner.init_chat_context()
                await self._save(request)
            case _:
                await self._answer(request)

    async def _greet(self, request: ChatRequest) -> None:
        greeting, context = self._owner.thread_options.greeting, self._opened()
        log = ThreadLog(context.thread)
        if greeting is None or log.messages():
            return
        log.add(greeting, author=self._author)
        context.chat.append_assistant_message(greeting)
        await self._save(request)
        await self._tell([self._sender(request)], "chat", {"text": greeting})

    async def _answer(self, request: ChatRequest) -> None:
        log = ThreadLog(self._opened().thread)
        before = self._opened().chat.checkpoint()
        await self._add_to_conversation(request, log)
        writer = AnswerWriter(
            log=log,
            author=self._author,
            writer_id=self._owner.room.local_participant.id,
            clock=self._owner.thread_options.clock,
        )
        try:
            with guarding():
                outcome = await first_of(guarded(self._reply(request, writer)), self._stop_answer.wait())
            if isinstance(outcome, Stopped):
                self._cut(writer, self._stop_note)
            else:
                writer.end()
                self._was_refused = False
        except asyncio.CancelledError:
            self._cut(writer, INTERRUPTED)
            raise
        except LLMRefusalError as refusal:
            writer.say(str(refusal))
            writer.end()
        except Exception as error:  # noqa: BLE001 - a hook or an adapter may raise anything: the conversation goes on
            self._log_failure(error)
            writer.end(INTERRUPTED if writer.has_text else "")
            text = explained(error, self._owner.name)
            log.add(f"{text}{self._repair(error, request, before)}", author=self._author, ref=ERROR)
        finally:
            await uninterrupted(self._end_answer(request), timeout=CLOSE_TIMEOUT + END_TIMEOUT + 1)

    def _repair(self, error: Exception, request: ChatRequest, before: Checkpoint) -> str:
        """Take what the provider refuses out of the conversation; return a sentence about it, "" when nothing was taken out.

        The first time that is this turn. When the turn after it is refused as well, the cause lies further back.
        """
        if not is_refused(error):
            return ""
        chat = self._opened().chat
        if self._was_refused:
            chat.forget()
            chat.append_user_message(LEFT_OUT)
            return ". The conversation so far was left out for the model; please send your message again."
        self._was_refused = True
        chat.roll_back(before)
        while ends_with(chat, request.text):  # a thread that was opened by this message was loaded with it
            chat.messages.pop()
        chat.append_user_message(REFUSED)
        return (
            ". Your message, with its files and tool results, was left out for the model; the conversation can go on."
        )

    async def _reply(self, request: ChatRequest, writer: AnswerWriter) -> None:
        """Let the bot answer, with the writer running beside it."""
        answering = self._owner.answer(
            context=self._opened(), request=request, sender=self._sender(request), event_handler=writer.on_event
        )
        outcome = await first_of(guarded(answering), writer.run())
        answer = outcome.result if isinstance(outcome, Won) else None
        if isinstance(answer, str) and answer and not writer.has_said(answer):
            writer.say(answer)

    async def _add_to_conversation(self, request: ChatRequest, log: ThreadLog) -> None:
        """Make sure that the message is in the document, and that the conversation has it once."""
        name = self._sender(request).get_attribute("name")
        seconds = self._owner.thread_options.echo_seconds
        element = await self._claims.claim(request, log, sender=name, bot=self._author, seconds=seconds)
        chat = self._opened().chat
        if self._claims.is_loaded(element) and ends_with(chat, request.text):
            return
        is_alone = len(set(log.members()) - {self._author, name}) == 0
        chat.append_user_message(request.text if is_alone or not name else f"{name}: {request.text}")

    def _cut(self, writer: AnswerWriter, note: str) -> None:
        """End an answer early. The conversation keeps what was said, so that the model knows it."""
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
        timeout = TELL_TIMEOUT if self._owner.is_leaving else END_TIMEOUT
        audience = {each.id: each for each in (*self._opened().participants, self._sender(request))}
        await self._tell(audience.values(), "thinking", {"thinking": False}, timeout)

    async def _save(self, request: ChatRequest) -> None:
        """Return when the thread is on the server's disk; when that fails, tell the sender of the request."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._owner.room.sync.flush(self.path)
        except (RoomError, TimeoutError) as error:
            reason = str(error) or "the room server did not answer in time"
            logger.warning("a chat thread was not saved", extra={"document": self.path, "reason": reason})
            await self.refuse(request, f"the thread was not saved: {reason}")

    async def _tell(
        self, to: Iterable[RemoteParticipant], type: str, fields: dict[str, Any], timeout: float = TELL_TIMEOUT
    ) -> None:
        await self._owner.tell(to, type, {"path": self._opened().path, **fields}, timeout=timeout)

    def _sender(self, request: ChatRequest) -> RemoteParticipant:
        # Of a participant that did not enable messaging only the id is known; that suffices to send it an answer.
        known = self._owner.room.messaging.get_participant(request.sender_id)
        return known or RemoteParticipant(id=request.sender_id)

    @property
    def _author(self) -> str:
        return str(self._owner.room.local_participant.get_attribute("name") or self._owner.name)

    def _opened(self) -> ChatThreadContext:
        if self._context is None:
            raise RoomError(f"thread {self.path!r} is not open")
        return self._context
