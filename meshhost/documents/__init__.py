"""Documents that several participants edit at once (room-protocol §13): their schema, their content and their CRDT.

`schema.py` says which elements a document may have, `document.py` is the tree that programs read and edit, `crdt.py` merges
edits and is the one place that touches pycrdt; `thread_schema.py` is the schema of chat threads. Both client and server are
built on it. No I/O: updates come in and go out as bytes; storing them is `meshhost.stores.documents`, sending them the
room's work. May import `identity` and the leaves.
"""
