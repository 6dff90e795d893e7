"""Stand-ins for what surrounds a host: the room that its agents join (`room`), and those who call them (`caller`)."""
