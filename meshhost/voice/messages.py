"""The messages of a voice call that is carried by messages of the room, as plain values.

Both ends are participants, and every message but the first has the `call_id`:

    caller → agent   voice_call    {call_id, transport: "messages", rate, transcript_path?}
    agent → caller   voice_answer  {call_id, rate}
    both             voice_audio   {call_id, seq} with PCM16 as attachment, or {…, data} with it in base64
    agent → caller   voice_clear   {call_id}                 drop what was received and not played: the caller spoke
    agent → caller   voice_state   {call_id, state}          listening, thinking, speaking
    agent → caller   voice_line    {call_id, speaker, text, began, ended, is_cut}
    both             voice_end     {call_id, reason?}

Sound is PCM16, little-endian, mono, at the `rate` of the call in both directions. One message has at most `MAX_AUDIO_MS` of it.
`seq` counts the audio messages of one direction from 0; the room keeps their order, and a number that was seen already is
ignored. An empty audio message is a sign of life.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from meshhost.errors import InvalidRequestError
from meshhost.protocol.voice_messages import ANSWER, AUDIO, CALL, CLEAR, END, LINE, MAX_AUDIO_MS, STATE
from meshhost.room.services.messaging import RoomMessage
from meshhost.voice.audio import SAMPLE_BYTES, Sound
from meshhost.voice.transcript import Line, Speaker

__all__ = [
    "ANSWER",
    "AUDIO",
    "CALL",
    "CLEAR",
    "END",
    "LINE",
    "MAX_AUDIO_MS",
    "STATE",
    "audio_in",
    "call_id_of",
    "line_in",
    "line_message",
    "text_in",
]

MAX_ID_CHARS = 100
_MAX_CHARS = 1_000


def call_id_of(body: Mapping[str, Any]) -> str | None:
    """Return the `call_id` of a message, or None when it has none."""
    value = body.get("call_id")
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS else None


def text_in(body: Mapping[str, Any], field: str, what: str, *, least: int = 0) -> str | None:
    """Return the text of a field, None without one. Raises InvalidRequestError that says what was expected."""
    value = body.get(field)
    if value is not None and not (isinstance(value, str) and least <= len(value) <= _MAX_CHARS):
        raise InvalidRequestError(field, f"expected {what}")
    return value


def audio_in(message: RoomMessage, rate: int) -> Sound:
    """Return the sound in a `voice_audio`. Raises InvalidRequestError that names the field."""
    pcm = message.attachment
    if pcm is None:
        pcm = _decoded(message.message.get("data", ""))
    if len(pcm) % SAMPLE_BYTES:
        raise InvalidRequestError("attachment", "expected whole samples of 16 bits")
    sound = Sound(pcm, rate)
    if sound.ms > MAX_AUDIO_MS:
        raise InvalidRequestError("attachment", f"expected at most {MAX_AUDIO_MS} ms of sound, got {sound.ms:.0f} ms")
    return sound


def _decoded(data: object) -> bytes:
    try:
        if isinstance(data, str):
            return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError("data", "expected PCM16 in base64")


def line_message(line: Line) -> dict[str, Any]:
    """Return a line of the transcript as the fields of a `voice_line`."""
    return {
        "speaker": line.speaker.value,
        "text": line.text,
        "began": line.began,
        "ended": line.ended,
        "is_cut": line.is_cut,
    }


def line_in(body: Mapping[str, Any]) -> Line:
    """Return the line in a `voice_line`. Raises InvalidRequestError."""
    try:
        return Line(
            speaker=Speaker(body["speaker"]),
            text=str(body["text"]),
            began=float(body["began"]),
            ended=float(body["ended"]),
            is_cut=bool(body.get("is_cut", False)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError("voice_line", f"not a line of a transcript: {error}") from None
