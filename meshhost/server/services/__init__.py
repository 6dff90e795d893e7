"""The services of a room server, one module or package each: operations, state per room, and hooks.

Belongs here: what a request does, which grant it needs, and what ends with a room, a participant or a connection. Does not
belong here: wire names (`wire/`) and transports. May import `core`, the stores, `meshhost.queues` and `meshhost.documents`; a
service never imports another one. `assembly.py` makes the list of services.
"""
