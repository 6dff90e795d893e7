"""Documents that several edit at once (room-protocol §13): their schema, their content, their CRDT and their store."""
