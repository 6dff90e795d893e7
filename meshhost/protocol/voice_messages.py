"""The types of the messages of a voice call that is carried by messages of the room, and the bounds of its sound.

`meshhost.voice.messages` says what they mean. Here, because the room server relays them for web pages (`server/voice/`).
"""

__all__ = [
    "ANSWER",
    "AUDIO",
    "CALL",
    "CLEAR",
    "END",
    "LINE",
    "MAX_AUDIO_MS",
    "MAX_RATE",
    "MIN_RATE",
    "PREFIX",
    "RATE_STEP",
    "STATE",
]

PREFIX = "voice_"
CALL = "voice_call"
ANSWER = "voice_answer"
AUDIO = "voice_audio"
CLEAR = "voice_clear"
STATE = "voice_state"
LINE = "voice_line"
END = "voice_end"

# Of the sound in one message.
MAX_AUDIO_MS = 500
# Samples per second: telephones' rate, and that of studios. A frame of 20 ms must hold a whole number of samples.
MIN_RATE = 8_000
MAX_RATE = 48_000
RATE_STEP = 50
