"""Tables of rooms, on LanceDB: the contract that services use, and a store that runs every table in a process of its tenant.

`contract` says what a store of tables promises. `store` keeps it: it sends each request to a worker process of the tenant
(`pool`, `process`), which runs LanceDB (`worker/`). The server's process never opens a table, so that a query can be bounded
in memory, ended in the middle, and cannot hold up the event loop. Needs the extra `database`; without it requests say so.
"""
