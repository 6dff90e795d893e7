"""Queues as a room server offers them, over any queue store: what waits, and what wakes it.

`service.py` adds to a store receivers that wait for a message, the retry policy and a clean stop; `waiters.py` holds the
receivers of this process in line; `sweeper.py` notices what time alone makes ready. `reader.py` is what is only looked at, with
waits for the end of a message (`watches.py`). What is true about messages, and what
several processes may rely on, is the store's contract: `meshhost.stores.queues`. What requests look like on the wire does not
belong here (`meshhost.server.services.queues`). May import `stores`, `identity` and the leaves.
"""
