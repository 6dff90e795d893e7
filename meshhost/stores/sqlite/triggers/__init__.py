"""Schedules and hooks in a SQLite file."""
