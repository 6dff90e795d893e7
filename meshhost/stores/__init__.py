"""What must outlast a process: one contract per kind of truth, and one package of implementations per engine.

Here belong the Protocols with their prose (`queues.py`, `documents.py`, `identity.py`, `notifier.py`), the values they take
and return, the object that opens them together (`engine.py`), and what is the same over every engine: refusals, the
in-process notifier, the key cache in front of the identity store, and files over an object store. `memory/` and `sqlite/`
hold one implementation of each contract; SQL is kept in `.sql` files beside them, migrations are numbered.

What does not belong here: waiting receivers, sweeping and retry policy (`meshhost.queues`), and anything that knows rooms,
sockets or requests. May import `documents`, `identity`, `protocol` and the leaves. Code above uses the Protocols only; which
engine runs is chosen in `meshhost.app.engines`. One contract suite per Protocol (`tests/contract`) runs on every engine.
"""
