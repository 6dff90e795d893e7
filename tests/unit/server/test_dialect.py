"""A dialect translates names both ways and leaves alone what it does not know."""

import pytest

from meshhost.server.wire.dialect import SDK_06


@pytest.mark.parametrize(
    ("word", "operation"),
    [
        ("room.sync", "sync.update"),
        ("room.connect", "sync.open"),
        ("queues.send", "queues.send"),
        ("what.is", "what.is"),
    ],
)
def test_sdk_06_and_the_server_understand_each_other(word: str, operation: str) -> None:
    assert SDK_06.operation(word) == operation
    assert SDK_06.type_of(operation) == word
