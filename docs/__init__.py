"""The documentation, and `docs.generate`, which writes the parts of it that come from the code. Not part of the package."""
