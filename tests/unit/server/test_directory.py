"""Which rooms are open, and how long."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshhost.errors import NotFoundError, RoomError
from meshhost.identity.grants import ApiScope
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.server.core.directory import RoomDirectory
from meshhost.server.core.ownership import OwnedElsewhereError
from meshhost.server.core.participants import Participant
from meshhost.server.core.peer import Capability, CloseReason
from meshhost.server.core.requests import Body, Operation, Operations
from meshhost.server.core.room import Room
from meshhost.server.core.service import RoomService, ServiceSet

KEY = RoomKey(TenantId("t"), "r")


class _Peer:
    """A peer that records how it was closed."""

    def __init__(self, *capabilities: Capability) -> None:
        self.closed: list[CloseReason] = []
        self.capabilities = frozenset(capabilities)
        self.slots: dict[Any, Any] = {}

    @property
    def closing(self) -> CloseReason | None:
        return self.closed[0] if self.closed else None

    def close(self, reason: CloseReason, _: str) -> None:
        self.closed.append(reason)


class _Ownership:
    """Says of some rooms that another server owns them, and waits when it is told to."""

    def __init__(self) -> None:
        self.elsewhere: dict[RoomKey, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def claim(self, key: RoomKey) -> None:
        self.calls.append(("claim", key.name))
        await self.free.wait()
        if url := self.elsewhere.get(key):
            raise OwnedElsewhereError(url)

    async def release(self, key: RoomKey) -> None:
        self.calls.append(("release", key.name))


class _World(RoomService):
    """A directory, and the service that it tells what happens."""

    def __init__(self, *, linger: float = 0.02, resume: float = 0.02) -> None:
        self.events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.work = False
        self.looked = asyncio.Event()
        self.ownership = _Ownership()
        self.directory = RoomDirectory(
            ServiceSet([self]),
            ownership=self.ownership,
            url_of=lambda name: f"ws://h/{name}",
            linger_seconds=linger,
            resume_seconds=resume,
        )

    async def has_work(self, _: Room) -> bool:
        self.looked.set()
        return self.work

    async def opened(self, room: Room) -> None:
        self.events.put_nowait(("started", room.key.name))

    async def left(self, _: Room, participant: Participant) -> None:
        self.events.put_nowait(("left", participant.name))

    async def ended(self, room: Room) -> None:
        self.events.put_nowait(("ended", room.key.name))

    async def join(
        self, name: str = "p", *, service: bool = False, resume: str | None = None
    ) -> tuple[Room, Participant]:
        room = await self.directory.open(KEY)
        return room, self.enter(room, name, service=service, resume=resume)

    def enter(
        self, room: Room, name: str, *, service: bool = False, resume: str | None = None, role: str = "user"
    ) -> Participant:
        joining = Participant(
            name=name, role=role, scope=ApiScope(), key_id="k", expires_at=None, called_by_service=service
        )
        participant = self.directory.join(room, joining, resume_token=resume)
        self.directory.attach(room, participant, _Peer(Capability.RESUME))  # type: ignore[arg-type]
        return participant

    async def leave(self, room: Room, participant: Participant, *, gone: bool) -> None:
        assert participant.peer is not None
        await self.directory.leave(room, participant, participant.peer, orderly=gone)

    async def next(self) -> tuple[str, str]:
        async with asyncio.timeout(5):
            return await self.events.get()


@pytest.fixture
async def world() -> AsyncIterator[_World]:
    own = _World()
    yield own
    await own.directory.stop(timeout=0.05)


async def test_a_room_starts_with_its_first_participant_and_ends_after_its_last(world: _World) -> None:
    room, first = await world.join("a")
    assert (await world.join("b"))[0] is room
    assert await world.next() == ("started", "r")
    assert (room.url, world.directory.rooms) == ("ws://h/r", [room])
    (second,) = [member for member in room.members.values() if member is not first]
    await world.leave(room, first, gone=True)
    await world.leave(room, second, gone=True)
    assert [await world.next() for _ in range(3)] == [("left", "a"), ("left", "b"), ("ended", "r")]
    assert world.directory.rooms == []
    assert (await world.join())[0].session_id != room.session_id


async def test_who_comes_while_the_room_lingers_keeps_it(world: _World) -> None:
    room, first = await world.join()
    await world.leave(room, first, gone=True)
    again, _ = await world.join()
    assert again is room
    await asyncio.sleep(0.05)
    assert world.directory.rooms == [room]


async def test_a_lost_participant_stays_a_member_for_a_while(world: _World) -> None:
    room, participant = await world.join()
    await world.next()
    await world.leave(room, participant, gone=False)
    assert list(room.members) == [participant.id]
    assert room.connected() == []
    with pytest.raises(NotFoundError):
        room.member(participant.id)
    assert await world.next() == ("left", "p")
    assert await world.next() == ("ended", "r")
    assert room.members == {}


async def test_a_resumed_participant_is_the_same(world: _World) -> None:
    room, participant = await world.join()
    await world.next()
    await world.leave(room, participant, gone=False)
    _, again = await world.join(resume=participant.resume_token)
    assert again is participant
    await asyncio.sleep(0.05)
    assert list(room.members) == [participant.id]
    assert world.events.empty()


@pytest.mark.parametrize(("name", "token"), [("other", None), ("p", "forged")])
async def test_who_cannot_show_the_token_is_somebody_else(world: _World, name: str, token: str | None) -> None:
    room, participant = await world.join()
    _, other = await world.join(name, resume=token or participant.resume_token)
    assert other is not participant
    assert len(room.members) == 2


async def test_a_token_of_another_role_does_not_resume(world: _World) -> None:
    room, participant = await world.join()
    other = world.enter(room, "p", resume=participant.resume_token, role="agent")
    assert other is not participant


async def test_resuming_closes_the_old_connection(world: _World) -> None:
    _, participant = await world.join()
    old: Any = participant.peer
    _, again = await world.join(resume=participant.resume_token)
    assert again is participant
    assert old.closed == [CloseReason.RESUMED_ELSEWHERE]


async def test_called_agents_alone_keep_a_room_only_while_there_is_work(world: _World) -> None:
    room, user = await world.join("user")
    _, agent = await world.join("agent", service=True)
    await world.next()
    world.work = True
    await world.leave(room, user, gone=True)
    async with asyncio.timeout(5):
        await world.looked.wait()
        world.looked.clear()
        await world.looked.wait()
    assert world.directory.rooms == [room]
    world.work = False
    assert [await world.next() for _ in range(2)] == [("left", "user"), ("ended", "r")]
    connection: Any = agent.peer
    assert connection.closed == [CloseReason.ROOM_ENDED]


async def test_who_comes_while_the_queues_are_looked_at_keeps_the_room() -> None:
    world = _World(linger=0.0)
    room, user = await world.join("user")
    await world.join("agent", service=True)
    await world.next()
    has_work = world.has_work

    async def look(room: Room) -> bool:
        await world.join("late")
        return await has_work(room)

    world.has_work = look  # type: ignore[method-assign]
    await world.leave(room, user, gone=True)
    async with asyncio.timeout(5):
        await world.looked.wait()
    await asyncio.sleep(0)
    assert world.directory.rooms == [room]
    await world.directory.stop(timeout=0.01)


async def test_those_whose_right_ended_are_closed(world: _World) -> None:
    room, first = await world.join("a")
    _, second = await world.join("b")
    world.directory.close_participants(lambda participant: participant.name == "a", "revoked")
    connections: list[Any] = [first.peer, second.peer]
    assert [connection.closed for connection in connections] == [[CloseReason.ACCESS_REVOKED], []]
    assert len(room.connected()) == 2


async def test_a_stop_sends_everybody_away_and_waits_for_them(world: _World) -> None:
    room, participant = await world.join()
    connection: Any = participant.peer
    async with asyncio.TaskGroup() as tasks:
        stopping = tasks.create_task(world.directory.stop(timeout=5))
        await asyncio.sleep(0)
        assert connection.closed == [CloseReason.SERVER_STOPPING]
        assert not stopping.done()
        await world.leave(room, participant, gone=True)
    assert not [timer for timer in world.directory._timers if not timer.cancelled()]


async def test_a_stop_does_not_wait_for_ever(world: _World, caplog: pytest.LogCaptureFixture) -> None:
    await world.join()
    await world.directory.stop(timeout=0.01)
    assert "did not leave in time" in caplog.text


async def test_ending_a_room_twice_is_ending_it(world: _World) -> None:
    room, participant = await world.join()
    assert await world.next() == ("started", "r")
    world.directory.end(room)
    world.directory.end(room)
    assert await world.next() == ("ended", "r")
    await world.leave(room, participant, gone=True)
    assert await world.next() == ("left", "p")
    await asyncio.sleep(0.05)
    assert world.events.empty()


async def test_a_store_that_fails_keeps_the_room_until_it_answers(
    world: _World, caplog: pytest.LogCaptureFixture
) -> None:
    room, user = await world.join("user")
    await world.join("agent", service=True)
    await world.next()
    failures: list[Exception] = [OSError("disk"), RoomError("down")]

    async def fail(_: Room) -> bool:
        if failures:
            raise failures.pop()
        return False

    world.has_work = fail  # type: ignore[method-assign]
    await world.leave(room, user, gone=True)
    assert [await world.next() for _ in range(2)] == [("left", "user"), ("ended", "r")]
    assert caplog.text.count("work of a room is not known") == 2


async def test_each_loss_of_a_connection_gives_the_whole_time_to_resume() -> None:
    world = _World(resume=0.2)
    room, participant = await world.join()
    await world.leave(room, participant, gone=False)
    await asyncio.sleep(0.15)
    world.enter(room, "p", resume=participant.resume_token)
    await world.leave(room, participant, gone=False)
    await asyncio.sleep(0.1)  # past the first deadline, before the second
    assert list(room.members) == [participant.id]
    await world.directory.stop(timeout=0.05)


async def test_a_room_of_another_server_is_not_opened(world: _World) -> None:
    world.ownership.elsewhere[KEY] = "https://b.example"
    with pytest.raises(OwnedElsewhereError) as caught:
        await world.directory.open(KEY)
    assert caught.value.server_url == "https://b.example"
    assert (world.directory.rooms, world.events.empty()) == ([], True)
    del world.ownership.elsewhere[KEY]
    assert world.directory.find(KEY) is None
    assert world.directory.find(KEY) is not await world.directory.open(KEY)


async def test_two_that_arrive_at_once_meet_in_one_room(world: _World) -> None:
    world.ownership.free.clear()
    async with asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(world.directory.open(KEY)) for _ in range(2)]
        await asyncio.sleep(0)
        world.ownership.free.set()
    assert opening[0].result() is opening[1].result()
    assert await world.next() == ("started", "r")
    assert world.events.empty()


async def test_a_room_is_given_up_when_it_has_ended_unless_it_started_again(world: _World) -> None:
    room, _ = await world.join()
    assert await world.next() == ("started", "r")
    world.directory.end(room)
    assert await world.next() == ("ended", "r")
    await asyncio.sleep(0)
    assert world.ownership.calls == [("claim", "r"), ("release", "r")]
    again, _ = await world.join()
    assert await world.next() == ("started", "r")
    world.directory.end(again)
    await world.join()
    assert {await world.next() for _ in range(2)} == {("started", "r"), ("ended", "r")}
    await asyncio.sleep(0)
    assert world.ownership.calls.count(("release", "r")) == 1


async def test_a_room_stays_open_for_one_who_arrives_and_ends_when_it_does_not_come() -> None:
    world = _World(linger=0.0)

    async def arrive() -> None:
        async with world.directory.opening(KEY) as room:
            user = world.enter(room, "user")
            await world.leave(room, user, gone=True)
            assert [await world.next() for _ in range(2)] == [("left", "user"), ("started", "r")]
            await asyncio.sleep(0.01)
            assert world.directory.rooms == [room]
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await arrive()
    assert await world.next() == ("ended", "r")
    await world.directory.stop(timeout=0.01)


async def test_one_who_arrives_at_a_room_that_was_ended_meanwhile_is_told_so(world: _World) -> None:
    async with world.directory.opening(KEY) as room:
        world.directory.end(room)
        participant = world.enter(room, "late")
    peer: Any = participant.peer
    assert peer.closed == [CloseReason.ROOM_ENDED]
    await world.leave(room, participant, gone=False)
    assert room.members == {}


async def test_one_who_arrives_while_the_server_stops_is_told_so(world: _World) -> None:
    async with world.directory.opening(KEY) as room:
        await world.directory.stop(timeout=0.01)
        participant = world.enter(room, "late")
    peer: Any = participant.peer
    assert peer.closed == [CloseReason.SERVER_STOPPING]


async def test_a_hook_that_fails_keeps_no_other_service_from_its_own(
    world: _World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RoomService):
        def joined(self, *_: Any) -> None:
            raise ZeroDivisionError

        disconnected = joined

        async def opened(self, *_: Any) -> None:
            raise ZeroDivisionError

        settle = left = ended = opened  # type: ignore[assignment]

    world.directory._services = ServiceSet([Broken(), world])
    room, participant = await world.join()
    await world.leave(room, participant, gone=True)
    assert [await world.next() for _ in range(3)] == [("left", "p"), ("started", "r"), ("ended", "r")]
    assert caplog.text.count("hook of a service failed") == 6


def test_two_services_cannot_offer_the_same_operation(world: _World) -> None:
    class One(RoomService):
        def operations(self) -> Operations:
            return {"x.y": Operation(Body, lambda *_: None)}

    with pytest.raises(ValueError, match=r"x\.y"):
        ServiceSet([One(), One()]).operations()


async def test_a_room_that_only_called_agents_come_back_to_ends_when_they_have_no_work(world: _World) -> None:
    async with world.directory.opening(KEY) as room:
        agent = world.enter(room, "agent", service=True)
    assert [await world.next() for _ in range(2)] == [("started", "r"), ("ended", "r")]
    peer: Any = agent.peer
    assert peer.closed == [CloseReason.ROOM_ENDED]


async def test_work_opens_a_room_and_keeps_it_open_without_anybody_in_it(world: _World) -> None:
    world.work = True
    world.directory.need(KEY)
    world.directory.need(KEY)
    assert await world.next() == ("started", "r")
    [room] = world.directory.rooms
    for _ in range(3):
        world.looked.clear()
        async with asyncio.timeout(5):
            await world.looked.wait()
    assert (world.directory.rooms, room.members) == ([room], {})
    world.work = False
    assert await world.next() == ("ended", "r")


async def test_work_that_comes_while_the_room_is_asked_for_work_keeps_it_open(world: _World) -> None:
    asked: list[Room] = []

    async def look(room: Room) -> bool:
        asked.append(room)
        if len(asked) == 1:
            world.directory.need(KEY)  # the store had answered already
        return False

    world.has_work = look  # type: ignore[method-assign]
    room, user = await world.join()
    await world.leave(room, user, gone=True)
    assert [await world.next() for _ in range(3)] == [("left", "p"), ("started", "r"), ("ended", "r")]
    assert asked == [room, room]


async def test_a_room_lingers_from_the_last_who_left(world: _World) -> None:
    own = _World(linger=0.2)
    room, first = await own.join("a")
    await own.leave(room, first, gone=True)
    await asyncio.sleep(0.15)
    _, second = await own.join("b")
    await own.leave(room, second, gone=True)
    await asyncio.sleep(0.1)  # past the first deadline, before the second
    assert own.directory.rooms == [room]
    await own.directory.stop(timeout=0.05)


async def test_a_room_that_is_only_looked_at_sleeps_and_is_gone_with_who_looked(world: _World) -> None:
    async with world.directory.opening(KEY, wakes=False) as room:
        looker = world.enter(room, "looker")
    assert (room.is_awake, world.directory.rooms) == (False, [room])
    await world.leave(room, looker, gone=True)
    assert world.directory.rooms == []
    assert [await world.next() for _ in range(2)] == [("left", "looker"), ("ended", "r")]


@pytest.mark.parametrize("how", ["arrival", "work"])
async def test_a_room_that_is_looked_at_wakes_when_it_is_needed(world: _World, how: str) -> None:
    async with world.directory.opening(KEY, wakes=False) as room:
        world.enter(room, "looker")
    if how == "work":
        world.directory.need(KEY)
    else:
        assert (await world.join())[0] is room
    assert await world.next() == ("started", "r")
    assert room.is_awake


async def test_a_deleted_room_is_not_woken_by_what_it_left_until_somebody_comes(world: _World) -> None:
    room, participant = await world.join()
    world.work = True
    world.directory.delete(KEY)
    await world.leave(room, participant, gone=True)
    world.directory.need(KEY)
    await asyncio.sleep(0)
    assert world.directory.rooms == []
    async with world.directory.opening(KEY) as again:
        user = world.enter(again, "user")
    await world.leave(again, user, gone=True)
    await asyncio.sleep(0.05)
    assert world.directory.rooms == [again]


async def test_work_in_a_room_of_another_server_opens_nothing(world: _World) -> None:
    world.ownership.elsewhere[KEY] = "https://b.example"
    world.directory.need(KEY)
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.directory.rooms == []
