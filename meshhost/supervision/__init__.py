"""Keeping agents alive, and ending them within bounds.

`state.py` is the one lifecycle table, `policy.py` decides about restarts (pure), `isolation.py` says what a running child is
and runs one as a task, `spawn.py` watches one child through all its lives, `drain.py` lets many leave, `supervisor.py` owns
them. A child's crash is its own; a cancellation is not a crash; every wait here ends by the clock that was passed in.
"""
