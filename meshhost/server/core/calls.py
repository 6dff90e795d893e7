"""Calls that the server passed on to a participant and awaits the answer of."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshhost.errors import RequestTimeoutError, ToolError
from meshhost.protocol.messages import ErrorResponse

if TYPE_CHECKING:
    from meshhost.server.core.participants import Participant
    from meshhost.server.wire.connection import Connection

__all__ = ["ANSWERS", "Call", "CallAnswer", "PendingCalls"]

# The messages that answer calls.
ANSWERS = frozenset({"agent.tool_call_response", "agent.ask_response"})

CallAnswer = tuple[dict[str, object], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call: `key` correlates its answer (a message id for a tool call, a task id for an ask).

    It was sent on `connection`; on a later one of the same provider its id means something else. `caller_key` is the name the
    caller may abandon it by.
    """

    provider: "Participant"
    key: int | str
    connection: "Connection"
    caller: "Participant"
    caller_key: str | None = None
    answer: asyncio.Future[CallAnswer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class PendingCalls:
    """Awaited answers of one room. Each ends by an answer, by the provider leaving, by its caller, or by its deadline."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, int | str], Call] = {}

    def __len__(self) -> int:
        return len(self._calls)

    async def wait(self, call: Call, *, timeout: float) -> CallAnswer:
        """The header and payload of the answer; call this before anything else can happen to the call.

        Raises ToolError when the provider left or the caller abandoned the call, RequestTimeoutError after `timeout` seconds.
        """
        self._calls[call.provider.id, call.key] = call
        try:
            async with asyncio.timeout(timeout):
                return await call.answer
        except TimeoutError:
            raise RequestTimeoutError(f"no answer within {timeout:g} s") from None
        finally:
            del self._calls[call.provider.id, call.key]
            if not call.answer.cancel() and not call.answer.cancelled():
                call.answer.exception()  # looked at, so that asyncio does not report it as lost

    def answer(self, provider: "Participant", key: int | str, header: dict[str, object], payload: bytes) -> None:
        """Take an answer. One that nobody awaits, or that another participant forged, is dropped."""
        call = self._calls.get((provider.id, key))
        if call is not None and not call.answer.done():
            call.answer.set_result((header, payload))

    def answer_unreadable(self, provider: "Participant", message_id: int, error: ErrorResponse) -> None:
        """Take an answer that was too large or no message at all.

        An ask's answer names its task only inside; it is known when the provider has no other ask under way.
        """
        key: int | str = message_id
        if (provider.id, key) not in self._calls:
            asks = [task for (owner, task) in self._calls if owner == provider.id and isinstance(task, str)]
            key = asks[0] if len(asks) == 1 else key
        text = f"the answer cannot be passed on: {error.text}"
        header = ErrorResponse(text=text, code=error.code).to_json()
        self.answer(provider, key, header | {"error": text}, b"")

    def fail(self, provider: "Participant") -> None:
        """The provider left: nobody waits for it any more."""
        for call in self._calls.values():
            if call.provider is provider:
                _fail(call, "the participant that was called has left the room")

    def abandon(self, caller: "Participant", caller_key: str) -> None:
        """The caller no longer waits. A call that is over, or somebody else's, is left alone."""
        for call in self._calls.values():
            if call.caller is caller and call.caller_key == caller_key:
                _fail(call, "the caller no longer waits for the answer")


def _fail(call: Call, why: str) -> None:
    if not call.answer.done():
        call.answer.set_exception(ToolError(why))
