"""What was signed for a room before it was deleted or imported is refused, and nothing else is."""

import pytest

from meshhost.errors import InvalidTokenError, RoomError
from meshhost.identity.tenant import RoomKey, TenantId
from meshhost.stores.deleted_rooms import DeletedRooms
from meshhost.stores.memory.identity import MemoryIdentityStore
from meshhost.testing.clock import FakeClock

ROOM = RoomKey(TenantId("acme"), "lobby")


@pytest.fixture
async def rooms() -> DeletedRooms:
    store = MemoryIdentityStore()
    await store.open()
    return DeletedRooms(store, FakeClock())


async def test_nothing_opens_a_room_that_is_being_imported(rooms: DeletedRooms) -> None:
    await rooms.import_until(ROOM, FakeClock().time() + 60)
    with pytest.raises(InvalidTokenError, match="being imported"):
        rooms.check(ROOM, FakeClock().time() + 1)
    await rooms.end_import(ROOM)
    rooms.check(ROOM, None)


async def test_a_deletion_refuses_what_was_signed_before_it(rooms: DeletedRooms) -> None:
    signed_before = FakeClock().time() - 1
    await rooms.begin(ROOM)
    with pytest.raises(InvalidTokenError, match="being deleted"):
        rooms.check(ROOM, FakeClock().time() + 1)
    await rooms.end(ROOM)
    with pytest.raises(InvalidTokenError, match="was deleted"):
        rooms.check(ROOM, signed_before)
    rooms.check(ROOM, FakeClock().time() + 1)


async def test_when_a_room_was_deleted_is_known_after_its_name_is_used_again(rooms: DeletedRooms) -> None:
    assert rooms.deleted_at(ROOM) == 0.0
    await rooms.begin(ROOM)
    await rooms.end(ROOM)
    assert rooms.deleted_at(ROOM) == FakeClock().time()


async def test_an_import_that_was_given_up_cannot_be_completed(rooms: DeletedRooms) -> None:
    await rooms.import_until(ROOM, FakeClock().time() + 60)
    await rooms.give_up_import(ROOM)
    with pytest.raises(RoomError, match="the import was given up"):
        await rooms.end_import(ROOM)


async def test_the_end_of_a_deletion_that_is_not_known_here_changes_nothing(rooms: DeletedRooms) -> None:
    await rooms.end(ROOM)
    rooms.check(ROOM, None)
