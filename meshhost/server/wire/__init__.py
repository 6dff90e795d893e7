"""The connections of participants, and the dialects that their clients speak.

Belongs here: reading and writing messages, and every wire name, close code and greeting. Does not belong here: what a request
does. May import `core` and `meshhost.transport`; not the services and not HTTP.
"""
