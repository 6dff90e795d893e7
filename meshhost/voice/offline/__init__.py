"""The stages of the cascade that need no service: what the extra `voice` brings.

`SileroActivity` tells speech from noise (the Silero model that faster-whisper carries, run by onnxruntime),
`SpeechRecognition` is Whisper's small English model by faster-whisper, `EspeakVoice` is eSpeak NG. All compute in threads that
the voice calls of a process share. They need two cores for a handful of calls at once; for more, or for better voices, give the
cascade stages of your own.
"""

from meshhost.voice.offline.espeak import EspeakVoice
from meshhost.voice.offline.silero import SileroActivity
from meshhost.voice.offline.whisper import SpeechRecognition

__all__ = ["EspeakVoice", "SileroActivity", "SpeechRecognition"]
