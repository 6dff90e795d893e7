"""Schedules and hooks: what starts work from outside, by putting a message into a queue of a room.

`timing` says when a schedule is due, `schedules` what a schedule is, `scheduler` sends for those that are due. Each keeps its
state in a trigger store (`meshhost.stores.triggers`) and sends through the queue service; none knows HTTP.
"""
