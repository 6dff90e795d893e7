"""The database service: requests about the tables of a room.

`bodies` has what requests look like, `service` answers them, over any `TableStore`.
"""
