"""Voice: agents that people talk with.

`carrier.py` says how sound travels, `thinker.py` who holds the conversation, `stages.py` what hearing and speaking is made of;
each is a Protocol, so that any carrier works with any thinker. `bot.py` is the agent, `caller.py` the other end of a call,
`cascade/` the thinker made of stages, `offline/` its stages that need no service, `carriers/` the ways of sound. `audio.py` is
sound as a value, `transcript.py` what was said.

Above `agents`, because a voice bot is an agent and its cascade asks any LLMAdapter. Imports without the libraries of the extra
`voice`; what needs them says so when it is made.
"""

from meshhost.voice.audio import FRAME_MS, Sound
from meshhost.voice.bot import VoiceBot, VoiceBotContext, VoiceConnection
from meshhost.voice.caller import Cleared, OutgoingCall, voice_agent
from meshhost.voice.carrier import Carrier, Connector, VoiceCall, VoiceState
from meshhost.voice.carriers.messages import MessageConnector
from meshhost.voice.cascade import Cascade
from meshhost.voice.stages import ActivityDetector, SpeechBegan, SpeechEnded, SpeechToText, TextToSpeech, VoiceActivity
from meshhost.voice.thinker import Conversation, Thinker
from meshhost.voice.transcript import Line, Speaker, Transcript

__all__ = [
    "FRAME_MS",
    "ActivityDetector",
    "Carrier",
    "Cascade",
    "Cleared",
    "Connector",
    "Conversation",
    "Line",
    "MessageConnector",
    "OutgoingCall",
    "Sound",
    "Speaker",
    "SpeechBegan",
    "SpeechEnded",
    "SpeechToText",
    "TextToSpeech",
    "Thinker",
    "Transcript",
    "VoiceActivity",
    "VoiceBot",
    "VoiceBotContext",
    "VoiceCall",
    "VoiceConnection",
    "VoiceState",
    "voice_agent",
]
