"""Stores in SQLite files: the engine of a single room server, which needs nothing installed or configured.

`file.py` locks a file and brings its schema up to date, `thread.py` runs operations on it in one thread with group commit,
`database.py` gives both a life that can be opened and closed; the stores keep the contracts of `meshhost.stores` on top.
Statements are in `<store>.sql`, migrations in `migrations/<store>/NNNN_name.sql`. May import the contracts and the leaves.
"""
