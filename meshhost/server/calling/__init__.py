"""Calls that a room server makes to others: it calls agents into rooms, and it sends webhooks about rooms.

`webhooks.py` posts, `caller.py` keeps the configured agents in their rooms, `records.py` remembers how the calls went, and
`service.py` connects them to the life of a room. May import `core` and `config`; nothing in `services` imports it.
"""
