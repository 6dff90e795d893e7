"""Names of tenants and rooms."""

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.identity.tenant import RoomKey, TenantId, check_room_name


@pytest.mark.parametrize("name", ["a", "7", "lobby", "a-b", "a--b", "a_b", "0" * 63])
def test_a_good_room_name_is_returned(name: str) -> None:
    assert check_room_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "_a", "a_", "a.b", "a/b", "ä", "a\n", "\u0661", "a" * 64])
def test_a_bad_room_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="expected 1-63") as caught:
        check_room_name(name)

    assert caught.value.field == "room name"


def test_rooms_of_two_tenants_with_one_name_are_two_rooms() -> None:
    mine, theirs = RoomKey(TenantId("acme"), "lobby"), RoomKey(TenantId("evil"), "lobby")

    assert mine != theirs
    assert str(mine) == str(theirs) == "lobby"
