"""What a host measures and shows of itself: metrics, load, health, and what blocks its event loop.

It may import `agents` and `processes` and decides nothing about agents; `http` shows it, the host's assembly connects it.
"""
