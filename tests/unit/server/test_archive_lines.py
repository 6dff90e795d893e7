"""A message goes through a line of an archive unchanged, and lines of any making are checked."""

from typing import Any

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.server.data.content import line_of_message, message_of, object_of
from meshhost.stores.queues import StoredMessage

MESSAGES = [
    StoredMessage(0, '"plain"', {}, 1.5),
    StoredMessage(0, '"keyed"', {"trace": "1"}, 1.5, priority=-7, key="user 1/ü\0", expires_at=99.5),
    StoredMessage(0, '"empty key"', {}, 1.5, priority=100, key=""),
    StoredMessage(0, '"dead"', {}, 1.5, 5, 0, 6, None, "boom", 2.5, priority=3, key="k"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.body)
def test_a_message_comes_out_of_its_line_as_it_went_in(message: StoredMessage) -> None:
    assert message_of(object_of(line_of_message(message))) == message


def test_a_line_of_an_older_release_has_no_options() -> None:
    message = message_of({"body": "1", "headers": {}, "sent_at": 1.5})
    assert (message.priority, message.key, message.expires_at) == (0, None, None)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"key": 7}, "key"),
        ({"key": "\ud800"}, "key"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": float("inf")}, "expires_at"),
    ],
)
def test_options_that_no_message_can_have_are_refused_by_name(values: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidRequestError, match=what):
        message_of({"body": "1", "headers": {}, "sent_at": 1.5, **values})
