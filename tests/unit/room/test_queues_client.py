"""What the queues client sends, over a link in memory."""

from typing import Any

import pytest

from meshhost.errors import ConnectionLostError, RequestTimeoutError
from meshhost.protocol.messages import EmptyResponse
from meshhost.room.services import queues as module
from meshhost.room.services.queues import QueuesClient


class _Link:
    """Answers every request with nothing, or raises what is put into `errors`."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.headers: list[dict[str, Any]] = []

    async def request(self, type: str, header: dict[str, Any], *_: Any, **__: Any) -> Any:
        self.headers.append(header)
        if self.errors:
            raise self.errors.pop(0)
        return EmptyResponse(), {}


async def test_a_lease_names_those_whose_replies_were_lost_with_the_connection() -> None:
    link = _Link()
    queues = QueuesClient(room=link)  # type: ignore[arg-type]
    link.errors = [ConnectionLostError(), ConnectionLostError(), RequestTimeoutError("late")]
    for error in (ConnectionLostError, ConnectionLostError, RequestTimeoutError):
        with pytest.raises(error):
            await queues.lease(name="q")
    for _ in range(2):
        assert await queues.lease(name="q") is None
    calls = [header["call"] for header in link.headers]
    assert len(set(calls)) == 5
    given_up = [header.get("given_up") for header in link.headers]
    # Also after the timeout: nobody knows whether the server read that one.
    assert given_up == [None, calls[:1], calls[:2], calls[:2], None]


async def test_only_as_many_lost_replies_are_named_as_the_server_takes() -> None:
    link = _Link()
    queues = QueuesClient(room=link)  # type: ignore[arg-type]
    for _ in range(module.MAX_LOST + 10):
        link.errors = [ConnectionLostError()]
        with pytest.raises(ConnectionLostError):
            await queues.lease(name="q")
    await queues.lease(name="q")
    assert len(link.headers[-1]["given_up"]) == module.MAX_LOST
