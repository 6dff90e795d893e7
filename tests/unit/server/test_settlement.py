"""When a delivery counts as done."""

import pytest

from meshhost.server.services.settlement import Settlement, on_end, on_receive


@pytest.mark.parametrize(
    ("wait", "leases", "settlement"),
    [
        (True, True, Settlement.EXPLICIT),
        (False, True, Settlement.EXPLICIT),
        (True, False, Settlement.AT_NEXT),
        (False, False, Settlement.AT_ONCE),
    ],
)
def test_leases_are_settled_by_their_holders_others_by_rule(wait: bool, leases: bool, settlement: Settlement) -> None:
    assert on_receive(wait=wait, leases=leases) is settlement


@pytest.mark.parametrize(
    ("role", "orderly", "settlement"),
    [
        ("agent", True, Settlement.RETURN),
        ("agent", False, Settlement.RETURN),
        ("tool", True, Settlement.RETURN),
        ("user", True, Settlement.AT_ONCE),
        ("user", False, Settlement.RETURN),
    ],
)
def test_only_a_user_who_left_in_order_has_taken_its_message(role: str, orderly: bool, settlement: Settlement) -> None:
    assert on_end(role=role, orderly=orderly) is settlement
