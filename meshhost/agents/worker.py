"""`Worker`: an agent that processes the messages of one queue of its room.

`start` spawns one task that runs a QueueConsumer (`meshhost.room.consuming`): it leases messages, up to `concurrency` at once,
calls `process_message` for each and settles it by how that ended; what was returned is the message's result. The consumer
renews the leases meanwhile and survives reconnects; this class adds the toolkits, the hooks that a program overrides, and the
model, which a program with its own `process_message` may leave out.

`drain` lets the messages in progress finish; `stop` cancels the task, and the consumer then gives them back. Invariant:
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
from meshhost.room.consuming import QueueConsumer, current_job
from meshhost.room.requirements import Requirement
from meshhost.room.services.queues import LeasedMessage
from meshhost.tasks import TaskOwner
from meshhost.tools.tool import ToolContext
from meshhost.tools.toolkit import Toolkit

if TYPE_CHECKING:
    from meshhost.room.client import RoomClient

__all__ = ["Worker", "idempotency_key"]

logger = logging.getLogger(__name__)

MAX_CONCURRENCY = 1000
_NEEDS_MODEL = "has no model: pass llm_adapter=…, or override process_message without calling super()"


class Worker(SingleRoomAgent):
    """Takes messages from `queue`, `concurrency` at once, and lets the model do what each says, with the toolkits.

    A message is acked when `process_message` has returned, with what that returned as its result if it is a JSON value of at
    most 64 KiB. If it raised, or took longer than `deadline` seconds, the message is retried with growing delays until its last
    attempt, and then dead-lettered with the traceback. If the worker stops meanwhile, the message goes back at once; if its
    process dies, when the lease expires. `rules` tell the model how to behave, `tool_adapter` turns tool answers into messages
    for the model, `requires` adds toolkits of the room.

    A class that overrides `process_message` needs no `llm_adapter`: the work is then its own code. Any other raises
    InvalidRequestError without one.
    """

    def __init__(
        self,
        *,
        queue: str | None,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        requires: Sequence[Requirement] | None = None,
        labels: Sequence[str] | None = None,
        llm_adapter: LLMAdapter[Any] | None = None,
        tool_adapter: ToolResponseAdapter | None = None,
        toolkits: Sequence[Toolkit] | None = None,
        rules: Sequence[str] | None = None,
        concurrency: int = 1,
        deadline: float | None = None,
    ) -> None:
        if not queue:
            raise InvalidRequestError("queue", "a Worker needs the name of a queue (is WORKER_QUEUE set?)")
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise InvalidRequestError(
                "concurrency", f"expected 1 to {MAX_CONCURRENCY} messages at once, got {concurrency}"
            )
        if deadline is not None and not deadline > 0:
            raise InvalidRequestError("deadline", f"expected seconds above 0, got {deadline}")
        if llm_adapter is None and type(self).process_message is Worker.process_message:
            raise InvalidRequestError("llm_adapter", f"worker {name or type(self).__name__!r} {_NEEDS_MODEL}")
        super().__init__(name=name, title=title, description=description, requires=requires, labels=labels)
        self._queue = queue
        self._llm_adapter = llm_adapter
        self._tool_adapter = tool_adapter
        self._toolkits = list(toolkits or ())
        self._rules = list(rules or ())
        self._concurrency = concurrency
        self._deadline = deadline
        self._tasks = TaskOwner(f"worker {name}")
        self._consumer: QueueConsumer | None = None
        self._hooks: dict[str, _Hook] = {}

    @property
    def activity(self) -> str | None:
        """That messages are being processed, how many, from which queue and for how long."""
        jobs = () if self._consumer is None else self._consumer.processing
        if not jobs:
            return None
        what = "a message" if len(jobs) == 1 else f"{len(jobs)} messages"
        seconds = time.monotonic() - min(job.began for job in jobs)
        return f"{what} of queue {self._queue!r} for {seconds:.0f} s"

    async def start(self, *, room: "RoomClient") -> None:
        """Begin to take messages."""
        await super().start(room=room)
        self._consumer = QueueConsumer(
            room=room,
            queue=self._queue,
            process=self._process,
            concurrency=self._concurrency,
            deadline=self._deadline,
        )
        self._tasks.spawn(self.run(room=room), name="consumer")

    async def stop(self) -> None:
        """Cancel the messages in progress, which go back to the queue. Idempotent."""
        if await self._tasks.stop(timeout=self.stop_seconds):
            logger.warning("worker did not end in time", extra={"agent": self.name})
        await super().stop()

    async def drain(self) -> None:
        """Take no further message, and return when those in progress are settled. The caller must set a timeout."""
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

    async def report_progress(self, message: Any, progress: Any) -> None:
        """Report how far the processing of the message is, for those who wait for it: a fraction, or any JSON value.

        For `process_message` and what it calls. Reports may be as frequent as is convenient: of many within half a second only
        the last one is sent. `message` is there to be read; the one that is being processed is meant. Raises RoomError when
        none is.
        """
        job = current_job()
        if job is None:
            raise RoomError("progress can be reported only while a message is being processed")
        await job.report_progress(progress)

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

        An override may leave out `room`, and may also take `message_id`, `attempt` (1 for the first) and `idempotency_key` (a
        text that is the same for all attempts of this message and for no other message: what an outside system can recognise a
        repeat by). It may be a plain `def`: it then runs in a thread, which holds up nobody else, but goes on to its end when
        the worker is stopped. What it returns is the message's result. Raises InvalidRequestError when the worker has no model.
        """
        if self._llm_adapter is None:
            raise InvalidRequestError("llm_adapter", f"worker {self.name!r} {_NEEDS_MODEL}")
        values = {"message": message, "chat_context": chat_context, "room": self.room}
        await self._call("append_message_context", values)
        return await self._llm_adapter.next(
            context=chat_context, room=room or self.room, toolkits=toolkits, tool_adapter=self._tool_adapter
        )

    async def _process(self, leased: LeasedMessage) -> Any:
        if not logger.isEnabledFor(logging.INFO):
            return await self._work(leased)
        began = time.monotonic()
        fields = {"queue": self._queue, "message_id": leased.id, "attempt": leased.attempt}
        logger.info("took a message", extra=fields)
        result = await self._work(leased)
        logger.info("message done", extra=fields | {"seconds": round(time.monotonic() - began, 3)})
        return result

    async def _work(self, leased: LeasedMessage) -> Any:
        """Prepare what the hooks take, call them, and return the result."""
        room = self.room
        message = self.decode_message(leased.message)
        chat_context = await self.init_chat_context()
        context = ToolContext(room=room, caller=room.local_participant)
        toolkits = [*await self.get_required_toolkits(context), *self._toolkits]
        rules = [rule for toolkit in toolkits for rule in toolkit.all_rules()]
        if rules:
            chat_context.append_rules(rules)
        values = {"chat_context": chat_context, "room": room, "message": message, "toolkits": toolkits}
        extra = {
            "message_id": leased.id,
            "attempt": leased.attempt,
            "idempotency_key": idempotency_key(room.room_name, leased),
        }
        return await self._call("process_message", values, extra)

    async def _call(self, hook: str, values: dict[str, Any], extra: dict[str, Any] | None = None) -> Any:
        """Call a hook with those values that it takes, and those extra ones that it names.

        Published programs override hooks with and without `room`; one that passes on all it gets must not get what is new.
        """
        if (found := self._hooks.get(hook)) is None:
            found = self._hooks[hook] = _Hook(getattr(self, hook))
        return await call(found.method, **found.chosen(values, extra or {}))


def idempotency_key(room: str, leased: LeasedMessage) -> str:
    """What is the same for all deliveries of this message, and for no other message."""
    # With the time of sending, as another server, or this one with a new database, gives the same ids again.
    return f"{room}/{leased.queue}/{leased.id}/{leased.sent_at}"


class _Hook:
    """A method that a program may override, and the arguments that it takes; found out once, not for every message."""

    __slots__ = ("_names", "_takes_all", "method")

    def __init__(self, method: Callable[..., Any]) -> None:
        parameters = inspect.signature(method).parameters
        self.method = method
        self._names = frozenset(parameters)
        self._takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())

    def chosen(self, values: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        """Return those of `values` that it takes, and those of `extra` that it names."""
        taken = values if self._takes_all else {name: values[name] for name in values if name in self._names}
        return taken | {name: extra[name] for name in extra if name in self._names}
