"""The loop of a queue worker: `QueueConsumer` leases messages, has each processed by a `Job`, and renews their leases
meanwhile.

`agents/worker.py` runs one consumer per agent. `job.py` is one message from its delivery to its settlement, `settling.py` the
acks of many at once, `progress.py` what the processing reports meanwhile. Delivery is at least once: a message is never acked
before it was processed, and one that was not settled, for whatever reason, comes back when its lease ends.
"""

from meshhost.room.consuming.consumer import QueueConsumer
from meshhost.room.consuming.job import Job, current_job

__all__ = ["Job", "QueueConsumer", "current_job"]
