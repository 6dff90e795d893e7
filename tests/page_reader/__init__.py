"""Reads Markdown pages for the tests of the documentation, and runs the blocks that a page shows."""
