"""Numbers that are not JSON."""

from typing import Any

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.protocol.json_values import check_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (NAN, "message"),
        ({"x": [1, {"y": INF}]}, "message.x[1].y"),
        ([0.5, -INF], "message[1]"),
        ((1, NAN), "message[1]"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_its_field(value: Any, field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_finite(value, "message")
    assert str(caught.value) == f"{field}: NaN and Infinity are not JSON"


def test_everything_else_passes() -> None:
    itself: list[Any] = []
    itself.append(itself)
    for value in (None, 1, 1.5, "NaN", [1.0, {"x": 1e308}], {"when": object()}, itself):
        check_finite(value, "message")
