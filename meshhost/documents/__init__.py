"""Documents that several participants edit at once (room-protocol §13): their schema, their content and their CRDT.

`schema.py` says which elements a document may have; `document.py` is the tree that programs read and edit, made of the nodes of
`elements.py`; `content.py` checks JSON before it becomes a part of the tree; `emitter.py` has the events; `crdt.py` merges
edits and is the one place that touches pycrdt; `thread_schema.py` is the schema of chat threads. Client and server are built
on this package. No I/O: updates come in and go out as bytes; `meshhost.stores.documents` keeps them, and the room sends them.
May import `identity` and the leaves.
"""
