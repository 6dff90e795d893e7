"""`RealtimeSession`: the client's side of one session of OpenAI's Realtime API, without I/O.

`receive` takes what came from the provider and returns events for the driver (`call.py`); what is to be sent lies in `outgoing`
afterwards. The session writes what is said into the `History` of the call, which outlives it.

The rules of the API that decide here:

- Only one answer at a time is written; a request for another is refused. So after tools, `response.create` is sent only when
  no answer is in progress, no call is pending and the caller is silent; when the caller speaks, the provider answers by itself.
- Events come in one order. An answer that was begun before our tool output was added does not know it, one that was begun
  after does; `_owes_answer` is set and cleared by the provider's own events and thereby is right in any race.
- The provider cancels an answer when the caller speaks. Pieces of it that arrive later belong to nothing and are dropped.

Nothing that a provider sends makes this raise: what is malformed is counted in `malformed` and left out.
"""

import base64
import binascii
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from meshhost.voice.realtime.events import (
    AnswerEnded,
    CallerSaid,
    Event,
    Expired,
    Failed,
    Ready,
    SessionFull,
    SoundArrived,
    SoundEnded,
    SpeechBegan,
    SpeechEnded,
    ToolCalled,
)
from meshhost.voice.realtime.history import History, Said, ToolUse
from meshhost.voice.realtime.playback import Cut

__all__ = ["RATE", "RealtimeSession", "append_event"]

logger = logging.getLogger(__name__)

RATE = 24_000
"""Samples per second of the API's sound, in both directions."""
BYTES_PER_MS = RATE * 2 // 1000

Json = dict[str, Any]

# Errors that say that what we wanted is so already, or no longer matters.
_HARMLESS = frozenset(
    {
        "conversation_already_has_active_response",
        "response_cancel_not_active",
        "input_audio_buffer_commit_empty",
        "item_truncate_invalid_item_id",
        "item_delete_invalid_item_id",
    }
)
_FINAL = frozenset(
    {
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
        "account_deactivated",
        "billing_hard_limit_reached",
        "content_policy_violation",
    }
)
_UPDATE_ID = "settings"
# Of one session: items whose sound may still arrive, and ids that are remembered.
_MAX_REMEMBERED = 1_000
_MAX_TEXT = 100_000


def append_event(pcm: bytes) -> str:
    """The event that sends sound of the caller, as text."""
    return f'{{"type":"input_audio_buffer.append","audio":"{base64.b64encode(pcm).decode()}"}}'


class RealtimeSession:
    """One session. `settings` is the `session` of its `session.update`."""

    def __init__(self, settings: Mapping[str, Any], history: History, *, prefix: str = "s") -> None:
        self.history = history
        self.outgoing: list[Json] = []
        self.malformed = 0
        self.is_ready = False
        self.is_caller_speaking = False
        self._settings = dict(settings)
        self._recognises = "transcription" in settings.get("audio", {}).get("input", {})
        self._prefix = prefix
        self._number = 0
        self._said: dict[str, Said] = {}
        self._answer: str | None = None
        self._has_sound = False
        self._written: list[Said] = []  # by the present answer
        self._awaits_answer = False
        self._dropped: str | None = None  # the answer whose pieces are no longer wanted
        self._owes_answer = False
        self._unrecognised: set[str] = set()  # turns of the caller whose words are to come
        self._pending: set[str] = set()  # calls of tools that are not answered
        self._called: dict[str, str] = {}  # names of called functions by item
        self._known_calls: set[str] = set()
        self._last_seed: str | None = None
        self._handlers: dict[str, Callable[[Json], Iterable[Event] | None]] = {
            "session.created": self._created,
            "session.updated": self._updated,
            "input_audio_buffer.speech_started": self._speech_began,
            "input_audio_buffer.speech_stopped": self._speech_stopped,
            "input_audio_buffer.committed": self._committed,
            "conversation.item.input_audio_transcription.completed": self._transcribed,
            "conversation.item.input_audio_transcription.failed": self._not_transcribed,
            "conversation.item.added": self._added,
            "response.created": self._answer_began,
            "response.output_item.added": self._output_begins,
            "response.output_item.done": self._output_ended,
            "response.output_audio.delta": self._sound,
            "response.output_audio.done": self._sound_ended,
            "response.output_audio_transcript.delta": self._words,
            "response.output_audio_transcript.done": self._all_words,
            "response.function_call_arguments.done": self._arguments,
            "response.done": self._done,
            "error": self._error,
        }

    def __repr__(self) -> str:
        return f"<RealtimeSession {self._prefix} ready={self.is_ready} answer={self._answer}>"

    @property
    def is_quiet(self) -> bool:
        """Whether nobody speaks, nothing is being written, and no answer is to come."""
        busy = self.is_caller_speaking or self._answer is not None or self._awaits_answer or self._owes_answer
        return not busy and not self._pending

    @property
    def is_recognising(self) -> bool:
        """Whether words of the caller are to come."""
        return bool(self._unrecognised)

    @property
    def is_settled(self) -> bool:
        """Whether it is quiet, and all that was said is known: the moment for another session to take over."""
        return self.is_quiet and not self._unrecognised

    def receive(self, text: str) -> list[Event]:
        """Take an event of the provider."""
        try:
            event = json.loads(text)
            return list(self._take(event["type"], event))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.malformed += 1
            logger.info("a realtime provider sent something that is no event", extra={"malformed": self.malformed})
            return []

    def seed(self, items: Iterable[Json]) -> bool:
        """Fill the session with the conversation so far; False when there is none. `SessionFull` follows otherwise."""
        self._last_seed = None
        for item in items:
            self._last_seed = self._create(item)
            if item["type"] == "function_call":
                self._known_calls.add(item["call_id"])
        return self._last_seed is not None

    def ask(self, instructions: str | None = None) -> None:
        """Let the model speak, although nobody has said anything. `instructions` count for this answer only."""
        if self._answer is None and not self._awaits_answer:
            self._awaits_answer = True
            response = {} if instructions is None else {"instructions": instructions}
            self._send("response.create", response=response)

    def answer_tool(self, use: ToolUse) -> None:
        """Give the model the output of a tool. The model goes on when it has all of them."""
        self._pending.discard(use.call_id)
        call, output = use.items()
        if use.call_id not in self._known_calls:  # it was called in a session before this one
            self._known_calls.add(use.call_id)
            self._create(call)
        self._create(output)

    def truncate(self, cuts: Iterable[Cut]) -> None:
        """Tell the provider what the caller did not hear."""
        for cut in cuts:
            said = self._said.get(cut.item_id)
            if said is None:  # of a session before this one
                continue
            said.heard_ms = cut.heard_ms
            # Not past the end of the sound, which would be refused.
            heard_ms = int(min(cut.heard_ms, said.ms))
            self._send("conversation.item.truncate", item_id=cut.item_id, content_index=0, audio_end_ms=heard_ms)

    @property
    def is_answering(self) -> bool:
        """Whether the model is writing an answer."""
        return self._answer is not None

    def knows(self, call_id: str) -> bool:
        """Whether this call of a tool, and its output if there was one, are part of the session's conversation."""
        return call_id in self._known_calls

    def said(self, item_id: str) -> Said | None:
        """The turn that an item is."""
        return self._said.get(item_id)

    def _take(self, kind: str, event: Json) -> Iterable[Event]:
        handler = self._handlers.get(kind)
        if handler is None or (self._dropped is not None and event.get("response_id") == self._dropped):
            return ()
        return handler(event) or ()

    def _created(self, _: Json) -> None:
        self._send("session.update", event_id=self._id(_UPDATE_ID), session=self._settings)

    def _updated(self, _: Json) -> Iterable[Event]:
        if not self.is_ready:
            self.is_ready = True
            yield Ready()

    def _speech_began(self, event: Json) -> Iterable[Event]:
        self.is_caller_speaking, self._dropped = True, self._answer
        for said in self._written if self._answer is not None else ():
            if not said.ms:  # its words came, its sound did not
                said.heard_ms = 0.0
        yield SpeechBegan(_text(event, "item_id"))

    def _speech_stopped(self, _: Json) -> None:
        self.is_caller_speaking, self._awaits_answer = False, True

    def _committed(self, event: Json) -> Iterable[Event]:
        self._said_by(_text(event, "item_id"), is_agent=False)
        if self._recognises:
            self._unrecognised.add(_text(event, "item_id"))
        yield SpeechEnded(_text(event, "item_id"))

    def _transcribed(self, event: Json) -> Iterable[Event]:
        return self._understood(_text(event, "item_id"), _text(event, "transcript").strip()[:_MAX_TEXT])

    def _not_transcribed(self, event: Json) -> Iterable[Event]:
        return self._understood(_text(event, "item_id"), "")

    def _answer_began(self, event: Json) -> None:
        self._answer, self._has_sound = _text(event["response"], "id"), False
        self._written = []
        self._awaits_answer = self._owes_answer = False

    def _output_begins(self, event: Json) -> None:
        item = event["item"]
        if item.get("type") == "function_call":
            self._called[_text(item, "id")] = _text(item, "name")
        elif item.get("type") == "message":
            self._written.append(self._said_by(_text(item, "id"), is_agent=True))

    def _output_ended(self, event: Json) -> Iterable[Event]:
        item = event["item"]
        if item.get("type") == "function_call":
            yield from self._call(_text(item, "call_id"), _text(item, "name"), _text(item, "arguments"))

    def _sound_ended(self, event: Json) -> Iterable[Event]:
        yield SoundEnded(_text(event, "item_id"))

    def _words(self, event: Json) -> None:
        said = self._said_by(_text(event, "item_id"), is_agent=True)
        said.text = ((said.text or "") + _text(event, "delta"))[:_MAX_TEXT]

    def _all_words(self, event: Json) -> None:
        self._said_by(_text(event, "item_id"), is_agent=True).text = _text(event, "transcript")[:_MAX_TEXT]

    def _arguments(self, event: Json) -> Iterable[Event]:
        # Older services do not name the function here: the item is what has the name.
        name = event.get("name") or self._called.get(_text(event, "item_id"), "")
        if name:
            yield from self._call(_text(event, "call_id"), str(name), _text(event, "arguments"))

    def _sound(self, event: Json) -> Iterable[Event]:
        item_id = _text(event, "item_id")
        try:
            pcm = base64.b64decode(_text(event, "delta"), validate=True)
        except binascii.Error:
            raise ValueError("delta") from None
        pcm = pcm[: len(pcm) & ~1]
        self._said_by(item_id, is_agent=True).ms += len(pcm) / BYTES_PER_MS
        self._has_sound = True
        yield SoundArrived(item_id, pcm)

    def _call(self, call_id: str, name: str, arguments: str) -> Iterable[Event]:
        if call_id not in self._known_calls:
            self._known_calls.add(call_id)
            self._pending.add(call_id)
            self.history.add(ToolUse(call_id, name, arguments))
            yield ToolCalled(call_id, name, arguments)

    def _understood(self, item_id: str, text: str) -> Iterable[Event]:
        said = self._said_by(item_id, is_agent=False)
        self._unrecognised.discard(item_id)
        said.text, said.sound = text, b""
        yield CallerSaid(item_id, text or None)

    def _added(self, event: Json) -> Iterable[Event]:
        item = event["item"]
        if self._last_seed is not None and item.get("id") == self._last_seed:
            self._last_seed = None
            yield SessionFull()
        elif item.get("type") == "function_call_output":
            self._owes_answer = True
            self._answer_tools()

    def _done(self, event: Json) -> Iterable[Event]:
        response = event["response"]
        if response.get("id") == self._answer:
            self._answer = None
        details = response.get("status_details") or {}
        if response.get("status") == "failed":
            error = details.get("error") or {}
            code = str(error.get("code") or error.get("type") or "")
            yield Failed(str(error.get("message") or code or "the model failed")[:500], code in _FINAL)
        else:
            yield AnswerEnded(self._has_sound)
            self._answer_tools()

    def _answer_tools(self) -> None:
        idle = self._answer is None and not self._awaits_answer and not self.is_caller_speaking
        if self._owes_answer and idle and not self._pending:
            self.ask()

    def _error(self, event: Json) -> Iterable[Event]:
        error = event["error"]
        code, text = str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")[:500]
        logger.info("a realtime provider reported an error", extra={"code": code, "event": error.get("event_id")})
        if code == "session_expired":
            yield Expired()
        elif not self.is_ready or error.get("event_id") == self._id(_UPDATE_ID) or code in _FINAL:
            yield Failed(text or code, True)
        elif code == "conversation_already_has_active_response":
            self._awaits_answer = False
        elif code not in _HARMLESS and self._awaits_answer and self._answer is None:
            # What we asked for is not coming.
            self._awaits_answer = False
            yield Failed(text or code, False)

    def _said_by(self, item_id: str, *, is_agent: bool) -> Said:
        said = self._said.get(item_id)
        if said is None:
            said = self._said[item_id] = Said(is_agent=is_agent)
            self.history.add(said)
            while len(self._said) > _MAX_REMEMBERED:
                del self._said[next(iter(self._said))]
        return said

    def _create(self, item: Json) -> str:
        item_id = self._id(str(self._number))
        self._number += 1
        self._send("conversation.item.create", item={**item, "id": item_id})
        return item_id

    def _send(self, type: str, **members: Any) -> None:
        self.outgoing.append({"type": type, **members})

    def _id(self, name: str) -> str:
        # At most 32 characters are allowed.
        return f"mh_{self._prefix}_{name}"[:32]


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event[name]
    if not isinstance(value, str):
        raise TypeError(name)
    return value
