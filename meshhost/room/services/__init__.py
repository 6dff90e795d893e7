"""The services of a room as a participant uses them: one file each."""
