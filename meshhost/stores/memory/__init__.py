"""Stores that keep everything in this process: for tests, and as the shortest reading of each contract."""
