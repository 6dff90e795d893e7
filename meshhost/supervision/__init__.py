"""Keeps agents alive and ends them within bounds. Generic: knows nothing of tenants, rooms or HTTP.

`state.py` is the lifecycle table, `policy.py` decides about restarts (pure), `isolation.py` defines what runs one life of an
agent and runs it as a task, `agent.py` supervises one agent through all its lives, `drain.py` lets many leave,
`supervisor.py` owns them. What an agent belongs to is an opaque `Key` that the caller defines.

It imports only leaves (clock, errors, logs, tasks). Invariants: one agent's crash never reaches another; a cancellation is not
a crash; every wait here is bounded by the clock that was passed in.
"""
