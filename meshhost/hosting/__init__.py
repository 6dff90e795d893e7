"""Hosting: the `ServiceHost` that turns calls into supervised agents, and the wiring of an embedded room server.

`service_host.py` is what users touch. A call comes in at `routes.py`, is checked by `webhooks.py` (signature) and
`admission.py` (room server, token, room), becomes a spawn in `spawns.py` (one per tenant, room, path and identity) and a
supervised child in `call.py` (joins the room, runs the agent, leaves). `drain.py` ends all of it in a fixed order, `signals.py`
brings SIGTERM and SIGINT into the event loop, `health.py` and `metrics.py` tell the truth about it.

`embedded.py` builds a room server from settings and files; it and the CLI are the only places that wire engines together.
"""
