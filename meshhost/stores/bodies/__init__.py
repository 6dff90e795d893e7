"""Bodies and results of messages that are too large for a row: what a row holds instead, and where the bytes are.

`reference.py` has the text in the row, `objects.py` the objects, `checking.py` what is allowed to be a body. The queue service
(`meshhost/queues/bodies.py`) decides when a body becomes an object and when that is deleted.
"""
