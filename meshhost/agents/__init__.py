"""Agents: programs that take part in a room and let a model decide what to do."""
