"""The small model on this machine."""
