"""The services of a room as a participant uses them: one client class per file, each over a `RoomLink`.

A service client translates methods into requests and messages of the wire (room-protocol §8 to §13), turns replies into typed
values, emits events, and registers a restorer if the server forgets something with a lost connection. It keeps no connection
and starts no thread. It imports `room.link` and leaves, never `room.client` and never another service.
"""
