"""A program that raises while it is imported."""

raise ImportError("no module named better")
