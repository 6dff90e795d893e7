"""Calls that the server passed on to a participant and awaits the answer of."""

import asyncio
from typing import TYPE_CHECKING

from meshhost.errors import RequestTimeoutError, ToolError

if TYPE_CHECKING:
    from meshhost.server.participants import Participant

__all__ = ["CallId", "PendingCalls", "T_Answer"]

# The provider's participant id and what correlates the answer: a message id (tool call) or a task id (ask).
CallId = tuple[str, int | str]
T_Answer = tuple[dict[str, object], bytes]


class PendingCalls:
    """Awaited answers of one room. Each ends by an answer, by the provider leaving, or by its deadline."""

    def __init__(self) -> None:
        self._answers: dict[CallId, asyncio.Future[T_Answer]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def expect(self, provider: "Participant", key: int | str) -> CallId:
        """Begin to await an answer; call before the call is sent."""
        call = (provider.id, key)
        self._answers[call] = asyncio.get_running_loop().create_future()
        return call

    async def wait(self, call: CallId, *, timeout: float) -> T_Answer:
        """The header and payload of the answer. Raises ToolError when the provider left, RequestTimeoutError."""
        try:
            async with asyncio.timeout(timeout):
                return await self._answers[call]
        except TimeoutError:
            raise RequestTimeoutError(f"no answer within {timeout:g} s") from None
        finally:
            self._answers.pop(call, None)

    def answer(self, provider: "Participant", key: int | str, header: dict[str, object], payload: bytes) -> None:
        """Take an answer. One that nobody awaits, or that another participant forged, is dropped."""
        answer = self._answers.get((provider.id, key))
        if answer is not None and not answer.done():
            answer.set_result((header, payload))

    def fail(self, provider: "Participant") -> None:
        """The provider left: nobody waits for it any more."""
        for (provider_id, _), answer in self._answers.items():
            if provider_id == provider.id and not answer.done():
                answer.set_exception(ToolError("the participant that was called has left the room"))
