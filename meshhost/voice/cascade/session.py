"""`Cascade`: holds voice calls by hearing, thinking and speaking in stages, each of them replaceable.

    frames → voice activity → speech to text → any LLMAdapter, with tools → sentences → text to speech → frames

One call is a `_Session`, with two tasks. One listens: it feeds every frame to the voice activity detector, stops the voice as
soon as the caller speaks (barge-in), and queues what was said. The other answers: it recognises what is queued, ends the
answer in progress, and begins the next as a task of its own (`_Answer`), in which the model writes while the voice speaks. If
nothing was understood, the sound was a noise, and the voice goes on with the sentence that was cut.

Invariant: the model's conversation has only what the caller heard. An answer that is ended early is reduced to that
(`heard.py`) before the next message is added.
"""

import asyncio
import logging
import re
from typing import Any

from meshhost.agents.adapter import LLMAdapter
from meshhost.agents.context import AgentChatContext
from meshhost.clock import Clock, SystemClock
from meshhost.errors import LLMError, MeshhostError
from meshhost.guard import guarded, guarding
from meshhost.voice.audio import FRAME_MS, silence
from meshhost.voice.carrier import VoiceState
from meshhost.voice.cascade.heard import keep_heard
from meshhost.voice.cascade.speaking import Voice
from meshhost.voice.stages import SpeechBegan, SpeechEnded, SpeechToText, TextToSpeech, VoiceActivity
from meshhost.voice.thinker import Conversation
from meshhost.voice.transcript import Line, Speaker

__all__ = ["Cascade"]

logger = logging.getLogger(__name__)

APOLOGY = "Sorry, something went wrong. Please try again."
# Utterances of a caller that wait to be understood; the oldest is dropped.
_MAX_WAITING = 8
# What is still waited for when the caller has hung up; and the silence that ends a word in progress: two seconds.
_LAST_WORDS_SECONDS = 10.0
_SILENT_FRAMES = 100
_WORD = re.compile(r"\w")


class Cascade:
    """A thinker made of stages. Without stages of its own it takes the offline ones, which need the extra `voice`.

    `model` is the adapter's model, None for its default. `apology` is said when the model or a tool fails. Raises SettingsError
    when an offline stage is needed and not installed.
    """

    def __init__(
        self,
        *,
        llm_adapter: LLMAdapter[Any],
        speech_to_text: SpeechToText | None = None,
        text_to_speech: TextToSpeech | None = None,
        voice_activity: VoiceActivity | None = None,
        model: str | None = None,
        apology: str = APOLOGY,
        clock: Clock | None = None,
    ) -> None:
        self.llm_adapter = llm_adapter
        self.speech_to_text = speech_to_text or _offline("SpeechRecognition")
        self.text_to_speech = text_to_speech or _offline("EspeakVoice")
        self.voice_activity = voice_activity or _offline("SileroActivity")
        self.model = model
        self.apology = apology
        self.clock = clock or SystemClock()

    async def run(self, conversation: Conversation) -> None:
        """Hold one voice call until its carrier's frames end. Raises LLMError when a stage fails for good."""
        await _Session(self, conversation).run()


def _offline(name: str) -> Any:
    # Not above: these modules import numpy and more, which programs with stages of their own do not need.
    from meshhost.voice import offline

    return getattr(offline, name)()


class _Session:
    """One voice call."""

    def __init__(self, cascade: Cascade, call: Conversation) -> None:
        self.cascade = cascade
        self.call = call
        self.chat = cascade.llm_adapter.create_chat_context() if call.chat is None else call.chat
        self.chat.append_rules(list(call.instructions))
        self._utterances: asyncio.Queue[tuple[float, SpeechEnded] | None] = asyncio.Queue(_MAX_WAITING)
        self._answer: _Answer | None = None
        self._is_caller_speaking = False
        self._is_over = False

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer_all(group), name=f"voice call {self.call.call_id} answers")
                await self._listen()
                # What the caller said last is not answered any more, but it was said: it belongs into the transcript.
                await asyncio.wait({answering}, timeout=_LAST_WORDS_SECONDS)
                answering.cancel()
        except* LLMError as errors:
            raise _first(errors) from None

    async def _listen(self) -> None:
        rate = self.call.carrier.rate
        detector = self.cascade.voice_activity.listen(self.call.call_id, rate)
        heard_ms, began = 0.0, 0.0
        async for frame in self.call.carrier.frames():
            heard_ms += FRAME_MS
            with guarding():
                events = await detector.feed(frame)
            began = await self._note(events, heard_ms, began)
        self._is_over = True
        await self._end_answer()
        with guarding():
            # A caller who hangs up in the middle of a word: silence ends it.
            for _ in range(_SILENT_FRAMES):
                heard_ms += FRAME_MS
                began = await self._note(await detector.feed(silence(FRAME_MS, rate)), heard_ms, began)
        self._queue(None)

    async def _note(self, events: list[SpeechBegan | SpeechEnded], heard_ms: float, began: float) -> float:
        """Act on what was heard; return when the last speech began, on the wall clock."""
        for event in events:
            if isinstance(event, SpeechBegan):
                began = self.cascade.clock.time() - max(0.0, heard_ms - event.at_ms) / 1000
                await self._on_speech()
            else:
                self._is_caller_speaking = False
                self._queue((began, event))
        return began

    async def _on_speech(self) -> None:
        self._is_caller_speaking = True
        if self._answer is not None:
            await self._answer.voice.hold()
        await self.call.carrier.show(VoiceState.LISTENING)

    def _queue(self, utterance: tuple[float, SpeechEnded] | None) -> None:
        if self._utterances.full():
            self._utterances.get_nowait()
            logger.warning("a caller speaks faster than is understood", extra={"voice_call": self.call.call_id})
        self._utterances.put_nowait(utterance)

    async def _answer_all(self, group: asyncio.TaskGroup) -> None:
        if self.call.greeting_prompt is not None:
            self.chat.append_user_message(self.call.greeting_prompt)
            self._begin(group)
        elif self.call.greeting is not None:
            self._begin(group, text=self.call.greeting)
        # While the caller is greeted: the first call of a process loads a model.
        await self.cascade.speech_to_text.prepare()
        while True:
            utterance = await self._utterances.get()
            if utterance is None:
                return
            began, speech = utterance
            text = await self._understood(speech)
            if text:
                await self._end_answer()
                line = Line(Speaker.CALLER, text, began, began + speech.speech.ms / 1000)
                await self.call.transcript.add(line)
                if self._is_over:
                    continue
                self.chat.append_user_message(text)
                self._begin(group)
            elif self._answer is not None and not self._is_caller_speaking:
                await self._answer.resume()

    async def _understood(self, speech: SpeechEnded) -> str:
        await self.call.carrier.show(VoiceState.THINKING)
        try:
            text = await guarded(self.cascade.speech_to_text.transcribe(speech.speech, call_id=self.call.call_id))
        except Exception as error:  # noqa: BLE001 - the stage may be a program's own
            logger.warning("speech was not understood", extra={"voice_call": self.call.call_id, "reason": str(error)})
            text = ""
        return text.strip() if _WORD.search(text) else ""

    def _begin(self, group: asyncio.TaskGroup, text: str | None = None) -> None:
        answer = _Answer(self, text)
        self._answer = answer
        answer.task = group.create_task(answer.run(), name=f"voice call {self.call.call_id} answer")

    async def _end_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.end()

    @property
    def is_caller_speaking(self) -> bool:
        """Whether the caller speaks now, as far as the detector knows."""
        return self._is_caller_speaking


class _Answer:
    """One answer: the model writes, the voice speaks. A given `text` is said without asking the model."""

    task: asyncio.Task[None]

    def __init__(self, session: _Session, text: str | None) -> None:
        self._session = session
        self._call = session.call
        self._chat: AgentChatContext = session.chat
        self._text = text
        self._before = self._chat.checkpoint()
        self._began: float | None = None
        self._parts: dict[tuple[object, ...], str] = {}
        self._shown: asyncio.Event = asyncio.Event()
        self.voice = Voice(
            carrier=self._call.carrier,
            text_to_speech=session.cascade.text_to_speech,
            voice=self._call.voice,
            call_id=self._call.call_id,
            on_first_frame=self._on_first_frame,
        )

    async def run(self) -> None:
        """Answer, to the end. Raises LLMError when there is no voice."""
        if self._session.is_caller_speaking:
            await self.voice.hold()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._show_speaking(), name="state of a voice call")
            speaking = group.create_task(self.voice.run(), name="voice")
            await self._write()
            self.voice.finish()
            await speaking
            self._shown.set()
        await self._add_line(self.voice.heard, is_cut=False)
        await self._call.carrier.show(VoiceState.LISTENING)

    async def resume(self) -> None:
        """The caller said nothing: go on."""
        self.voice.resume()
        if self.task.done():
            await self._call.carrier.show(VoiceState.LISTENING)
            return
        await self._call.carrier.show(VoiceState.SPEAKING if self._began is not None else VoiceState.THINKING)

    async def end(self) -> None:
        """End it: the conversation keeps what the caller has heard."""
        if self.task.done():
            return
        await self.voice.hold()
        self.task.cancel()
        await asyncio.wait({self.task})
        heard = self.voice.heard
        keep_heard(self._chat, self._before, heard)
        await self._add_line(heard, is_cut=True)

    async def _write(self) -> None:
        if self._text is not None:
            self._chat.append_assistant_message(self._text)
            self.voice.write(self._text)
            return
        cascade = self._session.cascade
        try:
            result = await guarded(
                cascade.llm_adapter.next(
                    context=self._chat,
                    room=self._call.room,
                    toolkits=self._call.toolkits,
                    tool_adapter=self._call.tool_adapter,
                    event_handler=self._on_event,
                    model=cascade.model,
                    on_behalf_of=self._call.caller,
                )
            )
        except Exception as error:  # a tool or an adapter of the program's own may raise anything; the call goes on
            known = isinstance(error, MeshhostError)
            fields = {"voice_call": self._call.call_id, "reason": str(error)}
            logger.warning("a caller was not answered", exc_info=None if known else error, extra=fields)
            self.voice.take_back()
            self.voice.write(cascade.apology)
            return
        # An adapter may send no events, or not for every text.
        if isinstance(result, str) and _joined(result) not in _joined(" ".join(self._parts.values())):
            self.voice.break_sentence()
            self.voice.write(result)

    def _on_event(self, event: Any) -> None:
        if not isinstance(event, dict):
            return
        key = (event.get("item_id"), event.get("content_index"))
        match event.get("type"):
            case "response.output_text.delta":
                self._grow(key, str(event.get("delta", "")))
            case "response.output_text.done":
                before, whole = self._parts.get(key, ""), str(event.get("text", ""))
                self._grow(key, whole[len(before) :] if whole.startswith(before) else "")
                self.voice.break_sentence()
                if key[0] is None:  # an adapter that names no items: its next text is another one
                    self._parts[(object(),)] = self._parts.pop(key, "")
            case "meshhost.turn.retried":
                self.voice.take_back()
            case _:
                pass

    def _grow(self, key: tuple[object, ...], text: str) -> None:
        self._parts[key] = self._parts.get(key, "") + text
        self.voice.write(text)

    def _on_first_frame(self) -> None:
        self._began = self._session.cascade.clock.time()
        self._shown.set()

    async def _show_speaking(self) -> None:
        await self._shown.wait()
        if self._began is not None:
            await self._call.carrier.show(VoiceState.SPEAKING)

    async def _add_line(self, text: str, *, is_cut: bool) -> None:
        if text and self._began is not None:
            line = Line(Speaker.AGENT, text, self._began, self._session.cascade.clock.time(), is_cut)
            await self._call.transcript.add(line)


def _first(errors: BaseExceptionGroup[LLMError]) -> LLMError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LLMError)
    return error


def _joined(text: str) -> str:
    return "".join(text.split())
