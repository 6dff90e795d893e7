"""When to dial again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import ConnectionLostError, RequestTimeoutError, RoomError, RoomRefusedError
from meshhost.room.reconnect import ReconnectPolicy, is_final


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_is_bounded(attempt: int, chance: float) -> None:
    policy = ReconnectPolicy(first_delay=0.2, max_delay=10.0)
    assert 0 <= policy.delay(attempt, lambda: chance) <= 10.0


def test_the_bound_doubles_up_to_its_limit() -> None:
    policy = ReconnectPolicy(first_delay=1.0, max_delay=5.0)
    assert [policy.delay(attempt, lambda: 1.0) for attempt in range(1, 6)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert policy.delay(3, lambda: 0.0) == 0.0


@pytest.mark.parametrize(
    ("error", "final"),
    [
        *((RoomRefusedError("x", status=status), True) for status in (400, 401, 403, 404, 410)),
        *((RoomRefusedError("x", status=status), False) for status in (408, 429, 500, 502, 503, 504)),
        *((ConnectionLostError(close_code=code), True) for code in (4000, 4001, 4004)),
        *((ConnectionLostError(close_code=code), False) for code in (None, 1000, 1001, 1002, 1006, 1011, 1013)),
        (RoomError("x"), True),
        (RequestTimeoutError("x"), True),
    ],
    ids=range(23),
)
def test_what_another_try_cannot_change_is_final(error: RoomError, final: bool) -> None:
    assert is_final(error) is final
