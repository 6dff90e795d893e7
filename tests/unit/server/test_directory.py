"""Which rooms are open, and how long."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshhost.errors import NotFoundError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.participants import Participant
from meshhost.server.core.room import Room

KEY = RoomKey(TenantId("t"), "r")


class _Connection:
    """Notes how it was closed."""

    def __init__(self) -> None:
        self.closed: list[int] = []

    def close(self, code: int, _: str) -> None:
        self.closed.append(code)


class _World:
    """A directory, and what it told."""

    def __init__(self, *, linger: float = 0.02, resume: float = 0.02) -> None:
        self.events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.work = False
        self.looked = asyncio.Event()
        self.directory = RoomDirectory(
            url_of=lambda name: f"ws://h/{name}",
            has_work=self._has_work,
            on_lost=self._on_lost,
            on_started=lambda room: self._note("started", room.key.name),
            on_ended=lambda room: self._note("ended", room.key.name),
            linger_seconds=linger,
            resume_seconds=resume,
        )

    async def _has_work(self, _: RoomKey) -> bool:
        self.looked.set()
        return self.work

    async def _on_lost(self, participant: Participant) -> None:
        await self._note("lost", participant.name)

    async def _note(self, what: str, name: str) -> None:
        self.events.put_nowait((what, name))

    def join(self, name: str = "p", *, service: bool = False, resume: str | None = None) -> tuple[Room, Participant]:
        room = self.directory.open(KEY)
        joining = Participant(
            name=name, role="user", scope=ApiScope(), key_id="k", expires_at=None, called_by_service=service
        )
        participant = self.directory.resume(room, resume, joining)
        participant.connection = _Connection()  # type: ignore[assignment]
        return room, participant

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(5):
            return await self.events.get()


@pytest.fixture
async def world() -> AsyncIterator[_World]:
    own = _World()
    yield own
    await own.directory.stop(timeout=0.05)


async def test_a_room_starts_with_its_first_participant_and_ends_after_its_last(world: _World) -> None:
    room, first = world.join("a")
    assert world.join("b")[0] is room
    assert await world.next() == ("started", "r")
    assert (room.url, world.directory.rooms) == ("ws://h/r", [room])
    (second,) = [member for member in room.members.values() if member is not first]
    world.directory.left(room, first, gone=True)
    world.directory.left(room, second, gone=True)
    assert await world.next() == ("ended", "r")
    assert world.directory.rooms == []
    assert world.join()[0].session_id != room.session_id


async def test_who_comes_while_the_room_lingers_keeps_it(world: _World) -> None:
    room, first = world.join()
    world.directory.left(room, first, gone=True)
    again, _ = world.join()
    assert again is room
    await asyncio.sleep(0.05)
    assert world.directory.rooms == [room]


async def test_a_lost_participant_stays_a_member_for_a_while(world: _World) -> None:
    room, participant = world.join()
    await world.next()
    world.directory.left(room, participant, gone=False)
    assert list(room.members) == [participant.id]
    assert room.connected() == []
    with pytest.raises(NotFoundError):
        room.member(participant.id)
    assert await world.next() == ("lost", "p")
    assert await world.next() == ("ended", "r")
    assert room.members == {}


async def test_a_resumed_participant_is_the_same(world: _World) -> None:
    room, participant = world.join()
    await world.next()
    world.directory.left(room, participant, gone=False)
    _, again = world.join(resume=participant.resume_token)
    assert again is participant
    await asyncio.sleep(0.05)
    assert list(room.members) == [participant.id]
    assert world.events.empty()


@pytest.mark.parametrize(("name", "token"), [("other", None), ("p", "forged")])
async def test_who_cannot_show_the_token_is_somebody_else(world: _World, name: str, token: str | None) -> None:
    room, participant = world.join()
    _, other = world.join(name, resume=token or participant.resume_token)
    assert other is not participant
    assert len(room.members) == 2


async def test_resuming_closes_the_old_connection(world: _World) -> None:
    _, participant = world.join()
    old: Any = participant.connection
    _, again = world.join(resume=participant.resume_token)
    assert again is participant
    assert old.closed == [4000]


async def test_called_agents_alone_keep_a_room_only_while_there_is_work(world: _World) -> None:
    room, user = world.join("user")
    _, agent = world.join("agent", service=True)
    await world.next()
    world.work = True
    world.directory.left(room, user, gone=True)
    async with asyncio.timeout(5):
        await world.looked.wait()
        world.looked.clear()
        await world.looked.wait()
    assert world.directory.rooms == [room]
    world.work = False
    assert await world.next() == ("ended", "r")
    connection: Any = agent.connection
    assert connection.closed == [4004]


async def test_who_comes_while_the_queues_are_looked_at_keeps_the_room() -> None:
    world = _World(linger=0.0)
    room, user = world.join("user")
    world.join("agent", service=True)
    await world.next()
    has_work = world.directory._has_work

    async def look(key: RoomKey) -> bool:
        world.join("late")
        return await has_work(key)

    world.directory._has_work = look
    world.directory.left(room, user, gone=True)
    async with asyncio.timeout(5):
        await world.looked.wait()
    await asyncio.sleep(0)
    assert world.directory.rooms == [room]
    await world.directory.stop(timeout=0.01)


async def test_those_whose_right_ended_are_closed(world: _World) -> None:
    room, first = world.join("a")
    _, second = world.join("b")
    world.directory.close_participants(lambda participant: participant.name == "a", "revoked")
    connections: list[Any] = [first.connection, second.connection]
    assert [connection.closed for connection in connections] == [[4001], []]
    assert len(room.connected()) == 2


async def test_a_stop_sends_everybody_away_and_waits_for_them(world: _World) -> None:
    room, participant = world.join()
    connection: Any = participant.connection
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(world.directory.stop(timeout=5))
        await asyncio.sleep(0)
        assert connection.closed == [1001]
        assert not stopping.done()
        world.directory.left(room, participant, gone=True)
    assert not [timer for timer in world.directory._timers if not timer.cancelled()]


async def test_a_stop_does_not_wait_for_ever(world: _World, caplog: pytest.LogCaptureFixture) -> None:
    world.join()
    await world.directory.stop(timeout=0.01)
    assert "did not leave in time" in caplog.text


async def test_ending_a_room_twice_is_ending_it(world: _World) -> None:
    room, participant = world.join()
    assert await world.next() == ("started", "r")
    world.directory.end(room)
    world.directory.end(room)
    assert await world.next() == ("ended", "r")
    world.directory.left(room, participant, gone=True)
    await asyncio.sleep(0.05)
    assert world.events.empty()
