"""What the engines have in common: checks and error texts, the history and the poison of messages, statements, a notifier.

Each engine's package uses these. Of the rest of the server only those do that have to say the same as a store.
"""
