"""Whole programs, wired from the parts below: a room server, `service run`, the local project."""
