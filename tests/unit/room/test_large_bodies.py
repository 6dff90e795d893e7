"""Fetching and uploading large bodies: what a server of another kind, or one that fails, answers."""

import asyncio
from typing import Any, cast

import pytest

from meshhost.errors import ConnectionLostError, NotFoundError, RoomError
from meshhost.protocol.messages import EmptyResponse, FileResponse
from meshhost.room.link import RoomLink
from meshhost.room.services import large_bodies
from meshhost.room.services.large_bodies import LargeBody
from meshhost.room.services.leased import LeasedMessage, load_all


class Room:
    """Answers in turn what it was given."""

    is_closed = False

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    @property
    def extensions(self) -> dict[str, Any]:
        raise RoomError("not connected")

    async def request(self, type: str, header: Any, data: bytes | None = None, **_: Any) -> Any:
        self.asked.append((type, header, data))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    send_request = request


def link(room: Room) -> RoomLink:
    return cast("RoomLink", room)


def piece(data: bytes, size: int) -> Any:
    return FileResponse(data=data, name="body.json", mime_type="application/json"), {"size": size}


async def test_a_body_is_fetched_in_pieces() -> None:
    room = Room(piece(b"[1,", 5), piece(b"2]", 5))
    assert await large_bodies.fetch(link(room), "q", "7", None) == [1, 2]
    assert [header["offset"] for _, header, _ in room.asked] == [0, 3]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((EmptyResponse(), {}), "did not answer with a body"),
        (piece(b"", 5), "ended early"),
        (piece(b"[1,2]", 5), "checksum differs"),
    ],
)
async def test_what_is_not_the_body_is_refused(answer: Any, text: str) -> None:
    with pytest.raises(RoomError, match=text):
        await large_bodies.fetch(link(Room(answer)), "q", "7", LargeBody(5, "0" * 64))


async def test_a_lost_connection_begins_the_upload_again_a_few_times() -> None:
    opened = {"handle": "h"}
    room = Room(opened, ConnectionLostError(), opened, None)
    sent: list[Any] = []

    async def send(handles: Any) -> str:
        sent.append(handles)
        if len(sent) == 1:
            room.answers += [opened, None]
            raise NotFoundError("no such upload: it was sent, failed, or its connection was lost")
        return "7"

    assert await large_bodies.with_uploads(link(room), "q", ["[]"], send) == "7"
    assert sent == [["h"], ["h"]]
    room = Room(*[ConnectionLostError()] * 5)
    with pytest.raises(ConnectionLostError):
        await large_bodies.with_uploads(link(room), "q", ["[]"], send)
    assert room.answers == []
    with pytest.raises(NotFoundError, match="no queue"):
        await large_bodies.with_uploads(link(Room(NotFoundError("no queue 'q'"))), "q", ["[]"], send)


def test_before_there_is_a_connection_nothing_is_known_of_the_server() -> None:
    assert not large_bodies.offers_large_bodies(link(Room()))


async def test_messages_that_cannot_be_fetched_are_given_back_at_once_and_not_one_after_the_other() -> None:
    given_back: list[tuple[str, str]] = []
    both = asyncio.Event()

    class Leased(LeasedMessage):
        async def load(self) -> None:
            raise RoomError("gone")

        async def nack(self, *, reason: str = "failed", error: str = "", delay: float | None = None) -> bool:
            given_back.append((reason, error))
            if len(given_back) == 2:
                both.set()
            await both.wait()
            return False

    async with asyncio.timeout(5):
        with pytest.raises(RoomError, match="gone"):
            await load_all([Leased(message=None, queue="q"), Leased(message=None, queue="q")])
    assert given_back == [("failed", "gone"), ("released", "")]
