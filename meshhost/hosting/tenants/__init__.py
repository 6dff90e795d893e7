"""What keeps the tenants of one host apart: quotas, turns to start, quarantine, memory, freezes.

`Tenancy` is the one part that the rest of hosting talks to; the other modules decide one thing each and know nothing of each
other. It may import supervision and `observe.load`; it holds no sockets and reads no settings.
"""
