"""Stores in SQLite files: what an embedded room server uses."""
