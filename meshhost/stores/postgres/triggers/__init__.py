"""Schedules and hooks in PostgreSQL."""
