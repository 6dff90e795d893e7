"""Realtime models: one model that hears and speaks, by OpenAI's Realtime API.

`thinker.py` has `Realtime`, which a VoiceBot takes. `call.py` holds one call: `session.py` is the session with the provider
without I/O, `line.py` the connection that it runs over, `incoming.py` and `output.py` the sound both ways, `history.py`
what a session hands to the next, `lines.py` the transcript. It uses the bundle of tools of `meshhost.openai`.
"""

from meshhost.voice.realtime.options import RealtimeOptions
from meshhost.voice.realtime.thinker import Realtime

__all__ = ["Realtime", "RealtimeOptions"]
