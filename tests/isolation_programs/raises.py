"""A program that cannot be read to its end."""

raise ImportError("no module named better")
