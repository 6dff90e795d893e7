"""Traces of rooms: which are recorded, where their spans come from, and how they are read.

`recorder.py` takes spans and has them stored in batches; `sampler.py` decides how many traces are begun. Spans come from queues
(`messages.py`), from the model gateway (`gateway.py`) and from participants (`service.py`). `meshhost.server.studio.traces`
shows them.
"""
