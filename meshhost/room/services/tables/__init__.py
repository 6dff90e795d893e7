"""Tables of the room: the client of `room.database`, and the types of their columns."""
