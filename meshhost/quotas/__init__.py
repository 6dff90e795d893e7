"""What one tenant may take of a room server: limits, counts of what is taken, and requests per second.

`quota.py` is the limits, `counts.py` the object that counts, `rates.py` the requests per second, `token_bucket.py` the rule
behind it. Room server, queues and identity use it; it knows none of them: who can count what is kept is passed in. May import
the leaves and `identity`.
"""
