"""The server's side of durable queues.

`backend.py` is the contract that every store keeps, `backends/` the stores, `notifier.py` the wake-ups, which are hints and
may be lost. Truth is stored: a message that `send` accepted is on disk; a message under lease is hidden until the lease is
acked (the message is deleted), nacked (it comes back, perhaps later) or expires (it comes back). To change a leased message
one shows its lease, whose token grows with each lease of that message, so that a holder who woke too late is refused.
"""
