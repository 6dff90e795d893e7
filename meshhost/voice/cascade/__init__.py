"""The cascade: a thinker that hears, thinks and speaks in stages.

`session.py` has the `Cascade` and what happens in one call, `speaking.py` the voice that says an answer while it is written,
`sentences.py` cuts the growing text, and `heard.py` keeps in the conversation what the caller has heard.
"""

from meshhost.voice.cascade.session import APOLOGY, Cascade

__all__ = ["APOLOGY", "Cascade"]
