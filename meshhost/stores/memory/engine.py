"""An engine in this process's memory: for tests and short-lived room servers; nothing outlasts the process.

Chosen by `meshhost.app.engines`, and used by the contract tests as the simplest of all. It keeps what the other engines keep,
with the same answers: a program cannot tell which it runs on until the process ends.
"""

from meshhost.clock import Clock
from meshhost.stores.engine import Engine
from meshhost.stores.memory.configuration import MemoryConfigurationStore
from meshhost.stores.memory.documents import MemoryDocumentStore
from meshhost.stores.memory.identity import MemoryIdentityStore
from meshhost.stores.memory.queues import MemoryQueueStore
from meshhost.stores.memory.triggers import MemoryTriggerStore
from meshhost.stores.memory.usage import MemoryUsageStore
from meshhost.stores.queues import QueueLimits
from meshhost.stores.shared.local_notifier import LocalNotifier

__all__ = ["memory_engine"]


def memory_engine(*, limits: QueueLimits | None = None, clock: Clock | None = None) -> Engine:
    """Return empty stores, not opened."""
    return Engine(
        name="memory",
        queues=MemoryQueueStore(limits=limits or QueueLimits(), clock=clock),
        documents=MemoryDocumentStore(clock=clock),
        identity=MemoryIdentityStore(),
        usage=MemoryUsageStore(),
        triggers=MemoryTriggerStore(),
        configuration=MemoryConfigurationStore(),
        notifier=LocalNotifier(),
    )
