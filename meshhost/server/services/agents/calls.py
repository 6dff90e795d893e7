"""Calls that the server passed on to a participant whose answer it awaits.

A tool call or an ask reaches its provider as an event; the answer comes back later as a message of the provider. `PendingCalls`
joins the two: the task that serves the caller's request awaits `wait`, and the task that reads the provider's connection calls
`answer`. Each call ends in exactly one way: by its answer, because the provider's connection ended, because the caller
abandoned it, by its deadline, or because the waiting task is cancelled. Afterwards nothing of it is kept.
"""

import asyncio
from dataclasses import dataclass, field

from meshhost.errors import RequestTimeoutError, RoomError, ToolError
from meshhost.protocol.messages import ErrorResponse, Header
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Peer

__all__ = ["Call", "CallAnswer", "PendingCalls"]

# Header and payload of the provider's answer.
CallAnswer = tuple[Header, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call. `key` names it in the provider's answer: a message id for a tool call, a task id for an ask.

    The call was sent to `peer`; on another connection of the same provider its key means something else. `caller_key` is the
    name by which the caller may abandon it.
    """

    provider: Participant
    key: int | str
    peer: Peer
    caller: Participant
    caller_key: str | None = None
    answer: asyncio.Future[CallAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class PendingCalls:
    """The calls in progress in one room."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int | str], Call] = {}
        self._deadlines: dict[Call, asyncio.Timeout] = {}

    def __len__(self) -> int:
        return len(self._calls)

    async def wait(self, call: Call, *, timeout: float) -> CallAnswer:
        """Wait for the answer. Must be called in the same step of the event loop in which the call was sent.

        Raises ToolError when the provider left or the caller abandoned the call, RequestTimeoutError after `timeout` seconds.
        """
        self._calls[call.provider.id, call.key] = call
        try:
            async with asyncio.timeout(timeout) as deadline:
                self._deadlines[call] = deadline
                return await call.answer
        except TimeoutError:
            raise RequestTimeoutError(f"no answer within {timeout:g} s") from None
        finally:
            del self._calls[call.provider.id, call.key]
            self._deadlines.pop(call, None)
            if not call.answer.cancel() and not call.answer.cancelled():
                call.answer.exception()  # retrieved, so that asyncio does not log it as lost

    def extend(self, call: Call, timeout: float) -> None:
        """Give the provider of a call `timeout` more seconds from now: it is still being sent what it works on."""
        deadline = self._deadlines.get(call)
        if deadline is not None and not deadline.expired():
            deadline.reschedule(asyncio.get_running_loop().time() + timeout)

    def answer(self, provider: Participant, key: int | str, header: Header, payload: bytes) -> None:
        """Take an answer. One that nobody awaits, or that comes from another participant, is dropped."""
        call = self._calls.get((provider.id, key))
        if call is not None and not call.answer.done():
            call.answer.set_result((header, payload))

    def find(self, provider: Participant, key: int | str) -> Call | None:
        """The call that a provider still works on."""
        return self._calls.get((provider.id, key))

    def answer_unreadable(self, provider: Participant, message_id: int, error: RoomError) -> None:
        """Take an answer that could not be read: it was too large or malformed.

        The answer to an ask names its task only inside; it is known when the provider has no other ask in progress.
        """
        key: int | str = message_id
        if (provider.id, key) not in self._calls:
            asks = [task for (owner, task) in self._calls if owner == provider.id and isinstance(task, str)]
            key = asks[0] if len(asks) == 1 else key
        text = f"the answer cannot be passed on: {error}"
        header = ErrorResponse(text=text, code=error.code).to_json()
        self.answer(provider, key, header | {"error": text}, b"")

    def fail(self, provider: Participant) -> None:
        """Fail the calls to a provider whose connection ended."""
        for call in self._calls.values():
            if call.provider is provider:
                _fail(call, "the participant that was called has left the room")

    def abandon(self, caller: Participant, caller_key: str) -> None:
        """Fail the call that its caller no longer waits for. A call that is over or belongs to another caller is left alone."""
        for call in self._calls.values():
            if call.caller is caller and call.caller_key == caller_key:
                _fail(call, "the caller no longer waits for the answer")


def _fail(call: Call, why: str) -> None:
    if not call.answer.done():
        call.answer.set_exception(ToolError(why))
