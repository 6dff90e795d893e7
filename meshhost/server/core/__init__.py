"""Rooms, who is in them, and how a request finds its handler; no sockets."""
