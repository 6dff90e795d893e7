"""Contents: the typed bodies of arguments, answers and chunks in SDK 0.56."""

from typing import Any

import pytest

from meshhost.protocol import contents


def test_contents_are_made_as_clients_read_them() -> None:
    assert contents.json_content([1]) == {"type": "json", "json": [1]}
    assert contents.binary(kind="x") == {"type": "binary", "headers": {"kind": "x"}}
    assert contents.error("no") == {"type": "error", "text": "no"}
    assert contents.error("no", 1003) == {"type": "error", "text": "no", "code": 1003}
    assert contents.close() == {"type": "control", "method": "close", "status_code": 1000}
    assert contents.close("why") == {"type": "control", "method": "close", "status_code": 1007, "message": "why"}


@pytest.mark.parametrize("content", [None, [], "open", {}, {"type": "control"}, {"type": "json", "method": "open"}])
def test_nothing_else_opens_a_stream(content: Any) -> None:
    assert not contents.is_open(content)
    assert contents.is_open(contents.OPEN)


def test_a_closing_chunk_is_recognised() -> None:
    assert contents.closes(contents.close("why"))
    assert not contents.closes(contents.OPEN)
    assert not contents.closes({"type": "text", "method": "close"})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, True),
        ({"a": 1}, True),
        ({"type": "json", "json": {}}, True),
        ({"type": "json", "json": []}, False),
        ({"type": "json"}, False),
        ({"type": "empty"}, False),
        ({"type": "text", "text": "x"}, False),
    ],
)
def test_a_content_is_an_object_or_not(content: Any, expected: bool) -> None:
    assert contents.is_object(content) is expected
