"""The queue stores. Each keeps the contract of `meshhost.queues.backend`, and the suite in tests/contract runs on all.

`memory.py` is the model to read first, and to test against; it keeps nothing. `sqlite.py` is the default store: what its
operations do (`sqlite.sql`), on `sqlite_thread.py` (one thread, group commit) and `sqlite_file.py` (lock, schema versions,
settings of the file). `sqlite3` is imported nowhere else.
"""
