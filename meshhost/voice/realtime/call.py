"""`RealtimeCall`: holds one voice call with a realtime model.

    frames → 24 kHz → `Incoming` → session of the provider → `Output` → frames

Tasks of one call: one takes the caller's frames, one sends them, one plays (`Output.run`), one keeps a session (`_keep`), one
reads each open session, and one runs each tool. The call ends when the frames do, and nothing runs on after it.

`_keep` opens a session, fills it with the conversation so far and lets it take over. Before the provider's limit it opens the
next one ahead and waits until nobody speaks; when a connection is lost it does so at once, with growing pauses. In between, the
caller's sound waits in `Incoming`, and what was being said is sent again. Invariant: only events of `_line` have an effect, and
the history is the only thing that one session hands to the next.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession

from meshhost.errors import LLMError
from meshhost.guard import guarded
from meshhost.openai.tools.tool_bundle import ToolBundle
from meshhost.tasks import first_of
from meshhost.tools.tool import ToolContext
from meshhost.voice.carrier import VoiceState
from meshhost.voice.realtime.events import (
    AnswerEnded,
    CallerSaid,
    Event,
    Failed,
    SessionFull,
    SoundArrived,
    SoundEnded,
    SpeechBegan,
    SpeechEnded,
    ToolCalled,
)
from meshhost.voice.realtime.history import History, Said
from meshhost.voice.realtime.incoming import Incoming
from meshhost.voice.realtime.line import LineLostError, RealtimeLine
from meshhost.voice.realtime.lines import OrderedLines
from meshhost.voice.realtime.options import Endpoint, RealtimeOptions
from meshhost.voice.realtime.output import Output
from meshhost.voice.realtime.playback import Cut
from meshhost.voice.realtime.session import BYTES_PER_MS, RATE, RealtimeSession
from meshhost.voice.realtime.tool_output import spoken
from meshhost.voice.resampling import Resampler
from meshhost.voice.thinker import Conversation
from meshhost.voice.transcript import Speaker

if TYPE_CHECKING:
    from meshhost.clock import Clock

__all__ = ["RealtimeCall"]

logger = logging.getLogger(__name__)

# Sound that waited goes out in larger pieces; usually a piece is one frame.
_PIECE_MS = 200.0
_MAX_FAILURES = 3
_SHORT_SECONDS = 10.0
_LAST_WORDS_SECONDS = 2.0
_FINISH_SECONDS = 10.0
_GO_ON = "Your last answer was cut off by a technical fault. Finish it now, without repeating what you have said."
_GREET = "The call begins now. Greet the caller with exactly these words, and no others: {}"


class RealtimeCall:
    """One call. `run` holds it."""

    def __init__(
        self,
        conversation: Conversation,
        options: RealtimeOptions,
        endpoint: Endpoint,
        http: ClientSession,
        clock: "Clock",
    ) -> None:
        self._call = conversation
        self._options = options
        self._endpoint = endpoint
        self._http = http
        self._clock = clock
        self._bundle = ToolBundle(conversation.toolkits)
        self._rules = "\n".join(
            [*conversation.instructions, *(rule for toolkit in conversation.toolkits for rule in toolkit.all_rules())]
        )
        self._settings = options.session(
            instructions=self._rules, voice=conversation.voice, tools=self._bundle.to_json()
        )
        self._history = History(conversation.chat.messages if conversation.chat is not None else ())
        self._incoming = Incoming(BYTES_PER_MS)
        self._lines = OrderedLines(conversation.transcript, clock)
        self._output = Output(conversation.carrier, on_begin=self._on_first_sound, on_heard=self._on_heard)
        self._said: dict[str, Said | None] = {}  # what is being played, by item
        self._line: RealtimeLine | None = None
        self._open: set[RealtimeLine] = set()
        self._numbers = 0
        self._attempts = 0
        self._failures = 0
        self._is_greeted = conversation.greeting is None and conversation.greeting_prompt is None
        self._was_cut_off = False
        # Set by whatever may let somebody go on who waits: sound to send, a line, silence.
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Hold the call until the carrier's frames end. Raises LLMError, which is said in the transcript as well."""
        try:
            await first_of(self._work(), self._hear())
        except* LLMError as errors:
            error = _first(errors)
            self._lines.begin("error", Speaker.AGENT)
            await self._lines.end("error", f"({error})")
            raise error from None
        finally:
            await self._finish()

    async def _finish(self) -> None:
        """Write what is known, and release what is open. The caller has hung up, or will be told so."""
        try:
            async with asyncio.timeout(_FINISH_SECONDS):
                await self._stop_voice()
                await self._lines.finish()
        except TimeoutError:
            logger.warning("a transcript was not finished", extra={"voice_call": self._call.call_id})
        for line in list(self._open):
            await line.close()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._spawn(self._output.run(), "voice")
            self._spawn(self._send(), "send")
            await self._keep()

    def _spawn(self, part: Coroutine[Any, Any, None], name: str) -> None:
        self._group.create_task(part, name=f"voice call {self._call.call_id} {name}")

    # Sound of the caller.

    async def _hear(self) -> None:
        resampler = Resampler(self._call.carrier.rate, RATE)
        async for frame in self._call.carrier.frames():
            pcm = resampler.feed(frame).pcm
            if pcm:
                self._incoming.add(pcm)
                self._moved.set()
        await self._know_last_words()

    async def _know_last_words(self) -> None:
        """The caller has hung up: what was said right before it is recognised a moment later."""
        end = self._clock.monotonic() + _LAST_WORDS_SECONDS
        while (line := self._line) is not None and line.session.is_recognising:
            if line.is_lost.is_set() or (left := end - self._clock.monotonic()) <= 0:
                return
            await self._wait(left)

    async def _send(self) -> None:
        while True:
            line = self._line
            if line is None or line.is_lost.is_set() or not self._incoming.waiting_ms:
                await self._wait()
                continue
            with contextlib.suppress(LineLostError):
                await line.send_sound(self._incoming.take(_PIECE_MS))

    async def _wait(self, seconds: float | None = None) -> None:
        """Return when something has moved, or after some seconds. Callers check right before, and again after."""
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()

    # Sessions with the provider.

    async def _keep(self) -> None:
        line = await self._open_line()
        while True:
            try:
                await self._take_over(line)
            except LineLostError:
                await line.close()  # it may be open, and take nothing
            line = await self._next(line)

    async def _open_line(self) -> RealtimeLine:
        """Open a line, however many tries it takes. Raises LLMError."""
        while True:
            if self._attempts:
                await self._clock.sleep(self._options.backoff.delay(self._attempts, random.random))
            try:
                return await self._try_open()
            except LineLostError as error:
                self._attempts += 1
                fields = {"voice_call": self._call.call_id, "attempt": self._attempts, "reason": str(error)}
                logger.warning("a session with a voice model was not opened", extra=fields)
                if self._attempts >= self._options.max_attempts:
                    raise LLMError(f"the voice model cannot be reached: {error}") from None

    async def _try_open(self) -> RealtimeLine:
        self._numbers += 1
        prefix = f"{self._numbers}_{self._call.call_id[-8:]}"
        session = RealtimeSession(self._settings, self._history, prefix=prefix)
        url, headers = self._endpoint.of(self._call.room, self._options.model)
        line = await RealtimeLine.open(self._http, url, headers, session, self._options)
        self._open.add(line)
        self._spawn(self._read(line), "read")
        return line

    async def _take_over(self, line: RealtimeLine) -> None:
        """Let this line go on with the conversation. Raises LineLostError."""
        self._line = None
        await self._lines.give_up(Speaker.CALLER)  # what is being said is heard anew
        self._incoming.rewind()
        await line.fill(self._history.seed())
        for use in self._history.finished_uses():  # also of tools that ended while it was filled
            if not line.session.knows(use.call_id):
                line.session.answer_tool(use)
        self._line = line
        self._go_on(line)
        await line.flush()
        self._moved.set()

    def _go_on(self, line: RealtimeLine) -> None:
        """Let the model speak, if it is its turn."""
        if not self._is_greeted:
            line.session.ask(self._greeting())
        elif self._was_cut_off:
            line.session.ask(f"{self._rules}\n{_GO_ON}")
        elif self._history.is_unanswered:
            line.session.ask()
        self._was_cut_off = False

    def _greeting(self) -> str:
        prompt = self._call.greeting_prompt
        return f"{self._rules}\n{prompt if prompt is not None else _GREET.format(self._call.greeting)}"

    async def _next(self, line: RealtimeLine) -> RealtimeLine:
        """Return the line that takes over from this one, when it is time for that: this one is lost, or old and it is quiet."""
        fresh: RealtimeLine | None = None
        options = self._options
        while not line.is_lost.is_set() and line.age < options.limit_seconds:
            if line.age < options.renew_seconds:
                await self._wait(options.renew_seconds - line.age)
            elif fresh is None or fresh.is_lost.is_set():
                try:
                    fresh = await self._try_open()
                except LineLostError:
                    await self._wait(min(options.backoff.max_delay, options.limit_seconds - line.age))
            elif line.session.is_settled and self._output.is_silent:
                break
            else:
                await self._wait(options.limit_seconds - line.age)
        self._leave(line)
        await line.close()
        if fresh is not None and not fresh.is_lost.is_set():
            return fresh
        return await self._open_line()

    def _leave(self, line: RealtimeLine) -> None:
        is_lost = line.is_lost.is_set()
        # One that is lost again and again is not well, however willingly it is opened.
        self._attempts = self._attempts + 1 if is_lost and line.age < _SHORT_SECONDS else 0
        session = line.session
        self._was_cut_off = session.is_answering and not session.is_caller_speaking
        self._output.end()
        fields = {"voice_call": self._call.call_id, "lost": is_lost, "seconds": round(line.age)}
        logger.info("a session with a voice model is replaced", extra=fields)

    async def _read(self, line: RealtimeLine) -> None:
        try:
            async for event in line.events():
                if isinstance(event, SessionFull):
                    line.is_full.set()
                elif line is self._line:
                    await self._on(line, event)
                self._moved.set()
        finally:
            self._open.discard(line)
            self._moved.set()
            await line.close()

    # What happens in the session.

    async def _on(self, line: RealtimeLine, event: Event) -> None:
        match event:
            case SoundArrived():
                self._said.setdefault(event.item_id, line.session.said(event.item_id))
                self._output.add(event.item_id, event.pcm)
            case SoundEnded():
                self._output.end(event.item_id)
            case SpeechBegan():
                await self._on_speech(line, event.item_id)
            case SpeechEnded():
                self._history.heard_sound(self._incoming.end_speech())
                await self._call.carrier.show(VoiceState.THINKING)
            case CallerSaid():
                await self._lines.end(event.item_id, event.text)
            case ToolCalled():
                self._spawn(self._use_tool(event), f"tool {event.name}")
            case AnswerEnded():
                self._failures, self._attempts, self._is_greeted = 0, 0, True
                if not event.has_sound and line.session.is_quiet and self._output.is_silent:
                    await self._call.carrier.show(VoiceState.LISTENING)
            case Failed():
                self._on_failure(line, event)
            case _:
                pass

    async def _on_speech(self, line: RealtimeLine, item_id: str) -> None:
        self._incoming.begin_speech()
        self._lines.begin(item_id, Speaker.CALLER)
        line.session.truncate(await self._stop_voice())
        await self._call.carrier.show(VoiceState.LISTENING)

    async def _stop_voice(self) -> list[Cut]:
        """Stop the voice; return what was not heard to its end."""
        whole, cuts = await self._output.stop()
        for item_id in whole:
            said = self._said.pop(item_id, None)
            await self._lines.end(item_id, None if said is None else said.heard)
        for cut in cuts:
            said = self._said.pop(cut.item_id, None)
            if said is not None:
                said.heard_ms = cut.heard_ms
                await self._lines.end(cut.item_id, said.heard, is_cut=True)
        return cuts

    async def _on_first_sound(self, item_id: str) -> None:
        self._is_greeted = True
        self._lines.begin(item_id, Speaker.AGENT)
        await self._call.carrier.show(VoiceState.SPEAKING)

    async def _on_heard(self, items: list[str]) -> None:
        for item_id in items:
            said = self._said.pop(item_id, None)
            await self._lines.end(item_id, None if said is None else said.heard)
        line = self._line
        if line is not None and line.session.is_quiet:
            await self._call.carrier.show(VoiceState.LISTENING)
        self._moved.set()

    def _on_failure(self, line: RealtimeLine, event: Failed) -> None:
        """Raises LLMError when there is no sense in another try."""
        self._failures += 1
        fields = {"voice_call": self._call.call_id, "failures": self._failures, "reason": event.text}
        logger.warning("a voice model did not answer", extra=fields)
        if event.is_final or self._failures >= _MAX_FAILURES:
            raise LLMError(f"the voice model failed: {event.text}")
        self._spawn(self._ask_again(line, self._failures), "next try")

    async def _ask_again(self, line: RealtimeLine, failures: int) -> None:
        await self._clock.sleep(self._options.backoff.delay(failures, random.random))
        if line is self._line and line.session.is_quiet:
            self._go_on(line)
            with contextlib.suppress(LineLostError):
                await line.flush()

    async def _use_tool(self, event: ToolCalled) -> None:
        room = self._call.room
        context = ToolContext(room=room, caller=room.local_participant, on_behalf_of=self._call.caller)
        try:
            async with asyncio.timeout(self._options.tool_seconds):
                answer = await self._bundle.execute(context=context, name=event.name, arguments=event.arguments)
                text = await guarded(spoken(answer, self._call.tool_adapter, room))
        except TimeoutError:
            text = "error: the tool did not answer in time"
        except Exception as error:  # the adapter may be a program's own
            logger.warning("a tool's answer was not translated", extra={"tool": event.name}, exc_info=True)
            text = f"error: {type(error).__name__}"
        use = self._history.tool_use(event.call_id)
        if use is None:  # the conversation has become too long to have it still
            return
        use.output = text
        line = self._line
        if line is not None:
            line.session.answer_tool(use)
            with contextlib.suppress(LineLostError):
                await line.flush()


def _first(errors: BaseExceptionGroup[LLMError]) -> LLMError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LLMError)
    return error
