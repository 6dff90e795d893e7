"""`VoiceBot`: an agent that people talk with.

A participant sends it the message `voice_call`; the bot finds the connector of the transport that the caller chose, joins the
call, and lets its thinker hold the conversation. Each call is a task of the bot, at most `max_calls` at once. A call ends when
the caller hangs up or leaves, when the bot stops, after `max_seconds`, or when the thinker fails. However it ends, the carrier
is closed and the transcript saved. One participant has one call: a new one ends the one before.

The room client calls `_on_message` on its read loop; that only parses and starts the task. Hooks that a program overrides run
in the task of their call, and what they raise ends that call only.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.base import SingleRoomAgent
from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError, MeshhostError, NotFoundError, RoomError
from meshhost.guard import call as run_hook
from meshhost.guard import guarding
from meshhost.room.participants import RemoteParticipant
from meshhost.room.requirements import Requirement
from meshhost.room.services.messaging import RoomMessage
from meshhost.tasks import TaskOwner
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit
from meshhost.voice import messages
from meshhost.voice.carrier import Carrier, Connector, VoiceCall
from meshhost.voice.carriers.messages import MessageConnector
from meshhost.voice.cascade import Cascade
from meshhost.voice.thinker import Conversation, Thinker
from meshhost.voice.threads import CallTranscript, ThreadTranscript

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["VoiceBot", "VoiceBotContext", "VoiceConnection"]

logger = logging.getLogger(__name__)

MAX_CALLS = 8
MAX_SECONDS = 3600.0
CONNECT_SECONDS = 30.0
ENDED_BY_AGENT = "the agent ends the call"
_TELL_SECONDS = 2.0
_END_SECONDS = 20.0  # for a call to end, and save its transcript, before the caller's next
# What models write is made for the eye, unless they are told.
VOICE_RULE = "You are heard, not read: answer in one to three short, plain sentences, without lists, code or Markdown."

_current: ContextVar[VoiceCall] = ContextVar("voice_call")


@dataclass(frozen=True, slots=True)
class VoiceConnection:
    """The place of a voice call: the room, the breakout room in it, and the carrier of the sound."""

    room: "RoomClient"
    breakout_room: str
    carrier: Carrier | None = None


@dataclass(frozen=True, slots=True)
class VoiceBotContext:
    """One voice call, as the hooks of a VoiceBot see it."""

    room: "RoomClient"
    caller: RemoteParticipant
    connection: VoiceConnection
    transcript_path: str | None


class VoiceBot(SingleRoomAgent):
    """Talks with people.

    `thinker` holds the conversations; with an `llm_adapter` instead it is the offline cascade around that model. `connectors`
    are the ways in which sound travels (None: messages of the room), the first one for callers that choose none. `rules` say
    how the model behaves, `client_rules` add some by the caller's attribute `client`. `voice` names a voice of the thinker.
    `auto_greet_message` is said when a call begins; with `auto_greet_prompt` the model is asked for a greeting. `transcripts`
    is a folder for the transcripts of callers that name no `transcript_path`; None writes none for them.
    """

    def __init__(
        self,
        *,
        name: str,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
        thinker: Thinker | None = None,
        llm_adapter: LLMAdapter[Any] | None = None,
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        rules: Sequence[str] | None = None,
        client_rules: Mapping[str, Sequence[str]] | None = None,
        voice: str | None = None,
        auto_greet_message: str | None = None,
        auto_greet_prompt: str | None = None,
        connectors: Sequence[Connector] | None = None,
        transcripts: str | None = None,
        max_calls: int = MAX_CALLS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        if max_calls < 1:
            raise InvalidRequestError("max_calls", f"expected at least 1, got {max_calls}")
        self.thinker = _thinker(thinker, llm_adapter)
        self._tool_adapter = tool_adapter
        self._toolkits = list(toolkits or ())
        self._rules = [*(rules or ()), VOICE_RULE]
        self._client_rules = {client: list(own) for client, own in (client_rules or {}).items()}
        self.voice = voice
        self.greeting = auto_greet_message
        self.greeting_prompt = auto_greet_prompt
        self._connectors = list(connectors) if connectors is not None else [MessageConnector()]
        self._transcripts = transcripts
        self._max_calls = max_calls
        self._max_seconds = max_seconds
        self._tasks = TaskOwner(f"voice bot {name}")
        self._calls: dict[str, _Running] = {}  # by the caller's participant id
        self._is_draining = False

    @property
    def rules(self) -> list[str]:
        """What every caller's conversation begins with."""
        return list(self._rules)

    @property
    def toolkits(self) -> list[Toolkit]:
        """What the model may use in every call, beside the toolkits that the bot requires."""
        return list(self._toolkits)

    @property
    def activity(self) -> str | None:
        """How many calls it holds, and for how long the longest."""
        if not self._calls:
            return None
        seconds = time.monotonic() - min(running.began for running in self._calls.values())
        what = "a voice call" if len(self._calls) == 1 else f"{len(self._calls)} voice calls"
        return f"{what} for {seconds:.0f} s"

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to take calls."""
        await super().start(room=room)
        self._is_draining = False
        room.messaging.on("message", self._on_message)
        try:
            await room.local_participant.set_attribute("supports_voice", True)
            await room.messaging.enable()
        except BaseException:
            await self.stop()
            raise

    async def drain(self) -> None:
        """Take no further call, and return when those in progress are over. The caller must set a timeout."""
        self._is_draining = True
        await self._tasks.wait()

    async def stop(self) -> None:
        """End all calls. Idempotent."""
        if self._room is None:
            return
        self._is_draining = True
        self._room.messaging.off("message", self._on_message)
        if await self._tasks.stop(timeout=self.stop_seconds):
            logger.warning("voice calls did not end in time", extra={"agent": self.name})
        self._calls.clear()
        await super().stop()

    # Hooks that a program may override.

    async def init_chat_context(self) -> AgentChatContext:
        """Return the conversation that a call begins with, in the form of the thinker's adapter."""
        adapter = getattr(self.thinker, "llm_adapter", None)
        return adapter.create_chat_context() if isinstance(adapter, LLMAdapter) else AgentChatContext()

    async def get_rules(self, participant: RemoteParticipant) -> list[str]:
        """Return the rules for a call of this participant."""
        return [*self._rules, *self._client_rules.get(str(participant.get_attribute("client")), ())]

    async def make_toolkits(self, context: VoiceBotContext) -> list[Toolkit]:
        """Return the toolkits for a call: those required in the room, and the bot's own."""
        tools = ToolContext(room=self.room, caller=self.room.local_participant, on_behalf_of=context.caller)
        return [*await self.get_required_toolkits(tools), *self._toolkits]

    async def create_session(self, context: VoiceBotContext) -> Thinker:
        """Return the thinker that holds this call."""
        return self.thinker

    async def on_session_created(self, context: VoiceBotContext, session: Thinker) -> None:
        """Called before a conversation begins; does nothing by default."""

    async def on_session_started(self, context: VoiceBotContext, session: Thinker) -> None:
        """Called when the caller can be heard; does nothing by default."""

    async def on_session_ended(self, context: VoiceBotContext, session: Thinker) -> None:
        """Called when a conversation is over, however it ended; does nothing by default."""

    async def run_voice_agent(self, *, participant: RemoteParticipant, breakout_room: str) -> None:
        """Hold the call of this participant, to its end. An override may do more before and after it."""
        call = _current.get()
        async with asyncio.timeout(CONNECT_SECONDS):
            carrier = await self._connector(call.transport).connect(call)
        reason: str | None = None
        limit = asyncio.timeout(self._max_seconds)
        try:
            async with limit:
                await self._converse(call, carrier)
        except TimeoutError:
            reason = "the call has become too long" if limit.expired() else "the agent failed"
            if not limit.expired():
                raise
        except asyncio.CancelledError:
            reason = ENDED_BY_AGENT
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, MeshhostError) else "the agent failed"
            raise
        finally:
            await carrier.close(reason)

    # Calls.

    async def _converse(self, call: VoiceCall, carrier: Carrier) -> None:
        path = call.transcript_path or self._transcript_path(call)
        connection = VoiceConnection(self.room, call.breakout_room, carrier)
        context = VoiceBotContext(self.room, call.caller, connection, path)
        # Programs wrote these for MeshAgent, as plain functions too: see `guard.call`.
        session: Thinker = await run_hook(self.create_session, context=context)
        if not callable(getattr(session, "run", None)):
            raise InvalidRequestError(
                "create_session", f"expected a thinker, such as Cascade, got {type(session).__name__}"
            )
        await run_hook(self.on_session_created, context=context, session=session)
        thread = await self._open_transcript(call, path)
        try:
            conversation = Conversation(
                call_id=call.id,
                room=self.room,
                caller=call.caller,
                carrier=carrier,
                transcript=CallTranscript(carrier, thread),
                instructions=await run_hook(self.get_rules, participant=call.caller),
                toolkits=await run_hook(self.make_toolkits, context=context),
                tool_adapter=self._tool_adapter,
                greeting=self.greeting,
                greeting_prompt=self.greeting_prompt,
                voice=self.voice,
                chat=await self.init_chat_context(),
            )
            await run_hook(self.on_session_started, context=context, session=session)
            await session.run(conversation)
        finally:
            if thread is not None:
                await thread.close()
            await run_hook(self.on_session_ended, context=context, session=session)

    async def _open_transcript(self, call: VoiceCall, path: str | None) -> ThreadTranscript | None:
        if path is None:
            return None
        names = {"caller": _name_of(call.caller), "agent": str(self.room.local_participant.get_attribute("name"))}
        thread = ThreadTranscript(self.room, path, **names)
        try:
            await thread.open()
        except (RoomError, TimeoutError) as error:
            reason = str(error) or "the room server did not answer in time"
            logger.warning("a voice call is not transcribed", extra={"document": path, "reason": reason})
            return None
        return thread

    def _transcript_path(self, call: VoiceCall) -> str | None:
        if self._transcripts is None:
            return None
        return f"{self._transcripts.strip('/')}/{datetime.now(UTC):%Y-%m-%d %H.%M.%S} {call.id[-8:]}.thread"

    def _connector(self, transport: str | None) -> Connector:
        for connector in self._connectors:
            if transport in (None, connector.transport):
                return connector
        known = ", ".join(repr(connector.transport) for connector in self._connectors)
        raise NotFoundError(f"agent {self.name!r} has no transport {transport!r}, only {known}")

    def _on_message(self, message: RoomMessage) -> None:
        if message.type != messages.CALL:
            return
        try:
            call = self._parsed(message)
            self._admit(call, message.from_participant_id)
        except RoomError as error:
            logger.warning("a voice call was refused", extra={"agent": self.name, "reason": str(error)})
            self._tasks.spawn(self._refuse(message, str(error)), name="refusal")
            return
        running = _Running(call, time.monotonic(), self._ending(call.caller.id))
        running.task = self._tasks.spawn(self._hold(running), name=f"voice call {call.id}")
        self._calls[call.caller.id] = running

    def _ending(self, caller_id: str) -> asyncio.Task[None] | None:
        """End the participant's call. Returns the task that a next one has to wait for."""
        former = self._calls.get(caller_id)
        if former is None or former.task is None:
            return None
        former.task.cancel()
        # One that still waits ends at once; what it waited for is what a next one waits for.
        return former.task if former.waits_for is None else former.waits_for

    def _parsed(self, message: RoomMessage) -> VoiceCall:
        body = message.message
        caller_id = messages.text_in(body, "participant_id", "the id of a participant") or message.from_participant_id
        known = self.room.messaging.get_participant(caller_id)
        return VoiceCall(
            id=messages.call_id_of(body) or uuid.uuid4().hex,
            room=self.room,
            # Of a participant that did not enable messaging only the id is known.
            caller=known or RemoteParticipant(id=caller_id),
            breakout_room=messages.text_in(body, "breakout_room", "the name of a breakout room") or "",
            transcript_path=messages.text_in(body, "transcript_path", "the path of a thread", least=1),
            transport=messages.text_in(body, "transport", "the name of a way for sound"),
            options=dict(body),
        )

    def _admit(self, call: VoiceCall, sender_id: str) -> None:
        if self._is_draining:
            raise RoomError(f"agent {self.name!r} is leaving the room: call again")
        if call.caller.id not in self._calls and len(self._calls) >= self._max_calls:
            raise RoomError(f"agent {self.name!r} holds {len(self._calls)} voice calls, and takes no more now")
        if call.caller.id in self._calls and sender_id != call.caller.id:
            # A call of a participant ends the one before: only the participant itself may do that.
            raise InvalidRequestError(
                "participant_id", "this participant is in a call, which another one cannot replace"
            )
        self._connector(call.transport)

    async def _hold(self, running: "_Running") -> None:
        call = running.call
        if running.waits_for is not None:
            await asyncio.wait({running.waits_for}, timeout=_END_SECONDS)
            running.waits_for = None
        _current.set(call)
        fields = {"agent": self.name, "voice_call": call.id}
        logger.info("a voice call has begun", extra=fields)
        try:
            with guarding():
                await self.run_voice_agent(participant=call.caller, breakout_room=call.breakout_room)
        except asyncio.CancelledError:
            await self._tell_end(call, ENDED_BY_AGENT)  # it may not have come so far as to have a carrier
            raise
        except (MeshhostError, TimeoutError) as error:
            logger.warning("a voice call failed", extra={**fields, "reason": str(error) or "no answer in time"})
            await self._tell_end(call, str(error) or "the call could not be joined in time")
        except Exception:  # hooks are the program's code: what they raise ends this call only
            logger.exception("a voice call failed", extra=fields)
            await self._tell_end(call, "the agent failed")
        finally:
            if self._calls.get(call.caller.id) is running:
                del self._calls[call.caller.id]
            logger.info("a voice call has ended", extra=fields)

    async def _refuse(self, message: RoomMessage, reason: str) -> None:
        body = {"call_id": messages.call_id_of(message.message), "reason": reason}
        with contextlib.suppress(RoomError, TimeoutError):
            to = RemoteParticipant(id=message.from_participant_id)
            async with asyncio.timeout(_TELL_SECONDS):
                await self.room.messaging.send_message(to=to, type=messages.END, message=body)

    async def _tell_end(self, call: VoiceCall, reason: str) -> None:
        """Tell a caller whose call did not come about. One whose carrier was closed is told twice, which does no harm."""
        with contextlib.suppress(RoomError, TimeoutError):
            body = {"call_id": call.id, "reason": reason}
            async with asyncio.timeout(_TELL_SECONDS):
                await self.room.messaging.send_message(to=call.caller, type=messages.END, message=body)


@dataclass(slots=True)
class _Running:
    """A call in progress."""

    call: VoiceCall
    began: float
    waits_for: asyncio.Task[None] | None = None  # the call before it, while that ends
    task: asyncio.Task[None] | None = None


def _thinker(thinker: Thinker | None, llm_adapter: LLMAdapter[Any] | None) -> Thinker:
    if thinker is not None:
        return thinker
    if llm_adapter is None:
        raise InvalidRequestError("thinker", "a VoiceBot needs a thinker, or an llm_adapter for the offline cascade")
    return Cascade(llm_adapter=llm_adapter)


def _name_of(participant: RemoteParticipant) -> str:
    return str(participant.get_attribute("name") or "caller")
