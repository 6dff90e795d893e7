"""What agents log while they work on messages, so that it can be read beside the message.

A leaf that agents and servers share: `line.py` is the value and its bounds, `recording.py` how records become lines.
"""
