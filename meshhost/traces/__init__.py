"""Traces of messages: the spans that a room server keeps, how they hang together, and how agents note them.

A leaf that both sides share: `span.py` is the value and its bounds, `context.py` how a trace travels with a message, and
`recording.py` what code of ours is wrapped in, beside OpenTelemetry.
"""
