"""One agent of a host: what it was started for (`assignment.py`), its life in a room (`life.py`), and which one runs here.

The same code runs in the host's event loop and in a process of an agent. It imports the room client and supervision, and
nothing else of hosting; `processes`, `calls` and `observe` import it.
"""
