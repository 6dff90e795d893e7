"""Looks after the SQLite files of a room server from outside of it: checks, migrates, backs up and restores them."""
