"""The link: one connection that carries many participants, or whatever else is spoken in messages.

`core.py` is the protocol without I/O, with its parts `frames`, `greeting`, `channels` and `events`; `docs/reference/link.md`
specifies it. `running.py` drives a core over a transport in an event loop, `dialling.py` keeps a link to a server up, and
`rooms.py` says what is spoken over a link between a service host and a room server. The core knows neither rooms nor hosts: who
is at its ends decides what its channels are for.
"""
