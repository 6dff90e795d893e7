"""`Worker`: an agent that processes the messages of one queue of its room.

`start` spawns one task that runs a QueueConsumer (`meshhost.room.consumer`): it leases a message, calls `process_message`
and settles the message by how that ended, one message at a time. The consumer renews the lease meanwhile and survives
reconnects; this class adds the toolkits, the hooks that a program overrides, and the model, which a program with its own
`process_message` may leave out.

`drain` lets the message in progress finish; `stop` cancels the task, and the consumer then gives the message back. Invariant:
a message is acked only after `process_message` has returned, so nothing that was accepted is lost.
"""

import inspect
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from meshhost.agents.adapter import LLMAdapter, ToolResponseAdapter
from meshhost.agents.base import SingleRoomAgent
from meshhost.agents.context import AgentChatContext
from meshhost.errors import InvalidRequestError, RoomError
from meshhost.guard import call
from meshhost.room.consumer import QueueConsumer
from meshhost.room.requirements import Requirement
from meshhost.room.services.queues import LeasedMessage
from meshhost.tasks import TaskOwner
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_NEEDS_MODEL = "has no model: pass llm_adapter=…, or override process_message without calling super()"


class Worker(SingleRoomAgent):
    """Takes messages from `queue`, one at a time, and lets the model do what each says, with the toolkits.

    A message is acked when `process_message` has returned. If that raised, the message is retried with growing delays until
    its last attempt, and then dead-lettered with the traceback. If the worker stops meanwhile, the message goes back at once;
    if its process dies, when the lease expires. `rules` tell the model how to behave, `tool_adapter` turns tool answers into
    messages for the model, `requires` adds toolkits of the room.

    A class that overrides `process_message` needs no `llm_adapter`: the work is then its own code. Any other raises
    InvalidRequestError without one.
    """

    def __init__(
        self,
        *,
        queue: str | None,
        name: str,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
        llm_adapter: LLMAdapter[Any] | None = None,
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        rules: Sequence[str] | None = None,
    ) -> None:
        if not queue:
            raise InvalidRequestError("queue", "a Worker needs the name of a queue (is WORKER_QUEUE set?)")
        if llm_adapter is None and type(self).process_message is Worker.process_message:
            raise InvalidRequestError("llm_adapter", f"worker {name!r} {_NEEDS_MODEL}")
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        self._queue = queue
        self._llm_adapter = llm_adapter
        self._tool_adapter = tool_adapter
        self._toolkits = list(toolkits or ())
        self._rules = list(rules or ())
        self._tasks = TaskOwner(f"worker {name}")
        self._consumer: QueueConsumer | None = None
        self._began = 0.0  # when the message in progress was taken (monotonic seconds)

    @property
    def activity(self) -> str | None:
        """That a message is being processed, from which queue and for how long."""
        if self._consumer is None or self._consumer.idle.is_set():
            return None
        return f"a message of queue {self._queue!r} for {time.monotonic() - self._began:.0f} s"

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to take messages."""
        await super().start(room=room)
        self._consumer = QueueConsumer(room=room, queue=self._queue, process=self._process)
        self._tasks.spawn(self.run(room=room), name="consumer")

    async def stop(self) -> None:
        """Cancel the message in progress, which goes back to the queue. Idempotent."""
        if await self._tasks.stop(timeout=self.stop_seconds):
            logger.warning("worker did not end in time", extra={"agent": self.name})
        await super().stop()

    async def drain(self) -> None:
        """Take no further message, and return when the one in progress is settled. The caller must set a timeout."""
        if self._consumer is not None:
            self._consumer.drain()
            await self._tasks.wait()

    async def wait_ended(self) -> None:
        """Wait until the worker ends by itself; raise the error that ended it."""
        await self._tasks.wait()

    async def run(self, *, room: "RoomClient") -> None:
        """Receive, process and settle messages. Returns when drained; raises RoomError when the room is lost for good."""
        if self._consumer is None:
            raise RoomError(f"worker {self.name!r} is not started")
        await self._consumer.run()

    async def init_chat_context(self) -> AgentChatContext:
        """Return a conversation with the worker's rules, in the form of the model's adapter if there is one."""
        adapter = self._llm_adapter
        context = await super().init_chat_context() if adapter is None else adapter.create_chat_context()
        if self._rules:
            context.append_rules(self._rules)
        return context

    def decode_message(self, message: Any) -> Any:
        """Return the message as `process_message` gets it; override to normalise it, or raise to refuse it."""
        return message

    async def append_message_context(self, *, message: Any, chat_context: AgentChatContext) -> None:
        """Add the message to the conversation: by default its JSON as a user message. An override may also take `room`."""
        chat_context.append_user_message(json.dumps(message, ensure_ascii=False))

    async def process_message(
        self,
        *,
        chat_context: AgentChatContext,
        message: Any,
        toolkits: Sequence[Toolkit],
        room: "RoomClient | None" = None,
    ) -> Any:
        """Let the model do what the message says; return its last answer.

        An override may leave out `room`. It may be a plain `def`: it then runs in a thread, which holds up nobody else, but
        goes on to its end when the worker is stopped. Raises InvalidRequestError when the worker has no model.
        """
        if self._llm_adapter is None:
            raise InvalidRequestError("llm_adapter", f"worker {self.name!r} {_NEEDS_MODEL}")
        await _call(self.append_message_context, message=message, chat_context=chat_context, room=self.room)
        return await self._llm_adapter.next(
            context=chat_context, room=room or self.room, toolkits=toolkits, tool_adapter=self._tool_adapter
        )

    async def _process(self, leased: LeasedMessage) -> None:
        self._began = time.monotonic()
        room = self.room
        message = self.decode_message(leased.message)
        chat_context = await self.init_chat_context()
        context = ToolContext(room=room, caller=room.local_participant)
        toolkits = [*await self.get_required_toolkits(context), *self._toolkits]
        rules = [rule for toolkit in toolkits for rule in toolkit.all_rules()]
        if rules:
            chat_context.append_rules(rules)
        logger.info("took a message", extra={"queue": self._queue, "attempt": leased.attempt})
        await _call(self.process_message, chat_context=chat_context, room=room, message=message, toolkits=toolkits)
        seconds = round(time.monotonic() - self._began, 3)
        logger.info("message done", extra={"queue": self._queue, "attempt": leased.attempt, "seconds": seconds})


async def _call(method: Callable[..., Any], **arguments: Any) -> Any:
    """Call a hook with those arguments that it accepts: published programs override hooks with and without `room`."""
    parameters = inspect.signature(method).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        arguments = {name: value for name, value in arguments.items() if name in parameters}
    return await call(method, **arguments)
