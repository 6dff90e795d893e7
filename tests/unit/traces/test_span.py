"""Spans are bounded where they are made, and refused over their bounds where they arrive."""

import json
from typing import Any

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.traces.span import MAX_ATTRIBUTES, MAX_KEY, MAX_NAME, MAX_TEXT, Span, bounded

TRACE, ID, ABOVE = "a" * 32, "b" * 16, "c" * 16


def test_what_is_written_is_read_again() -> None:
    span = Span(TRACE, ID, ABOVE, "work", 5.0, 0.5, "broken", "ann", {"a": "b", "n": 1, "f": 0.5, "t": True})
    assert Span.read(json.loads(json.dumps(span.as_json())), trace=TRACE) == span
    assert (span.end, span.size > 160) == (5.5, True)


def test_what_is_empty_is_left_out() -> None:
    assert Span(TRACE, ID, "", "work", 5.0, 0.5).as_json() == {
        "id": ID,
        "parent": "",
        "name": "work",
        "begin": 5.0,
        "seconds": 0.5,
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"trace": "A" * 32}, "trace"),
        ({"trace": None}, "trace"),
        ({"id": "b" * 15}, "id"),
        ({"parent": "b"}, "parent"),
        ({"parent": 7}, "parent"),
        ({"name": ""}, "name"),
        ({"name": "n" * (MAX_NAME + 1)}, "name"),
        ({"name": 5}, "name"),
        ({"begin": -1}, "begin"),
        ({"begin": "1"}, "begin"),
        ({"begin": True}, "begin"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 1e12}, "seconds"),
        ({"error": "e" * (MAX_TEXT + 1)}, "error"),
        ({"attributes": [1]}, "attributes"),
        ({"attributes": {str(number): 1 for number in range(MAX_ATTRIBUTES + 1)}}, "attributes"),
        ({"attributes": {"k" * (MAX_KEY + 1): 1}}, "attributes"),
        ({"attributes": {"k": "v" * (MAX_TEXT + 1)}}, "attributes.k"),
        ({"attributes": {"k": None}}, "attributes.k"),
        ({"attributes": {"k": {"deep": 1}}}, "attributes.k"),
        ({"attributes": {"k": 1e300}}, "attributes.k"),
        ({"attributes": {"k": 10**400}}, "attributes.k"),
        ({"begin": 10**400}, "begin"),
    ],
)
def test_a_span_over_its_bounds_is_refused_with_the_name_of_the_field(changes: dict[str, Any], field: str) -> None:
    found = {"trace": TRACE, "id": ID, "name": "work", "begin": 1.0, "seconds": 1.0, **changes}
    with pytest.raises(InvalidRequestError, match=rf"spans\[3\]\.{field}"):
        Span.read(found, path="spans[3]")


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="expected a JSON object"):
        Span.read("span")


def test_attributes_are_cut_and_what_cannot_be_shown_is_left_out() -> None:
    many: dict[str, Any] = {"k" * 100: "v" * 1000, "none": None, "list": [1], "inf": float("inf"), "yes": True}
    many["huge"] = 10**400
    kept = bounded(many)
    assert kept == {"k" * MAX_KEY: "v" * MAX_TEXT, "yes": True}
    assert len(bounded({str(number): number for number in range(100)})) == MAX_ATTRIBUTES


def test_a_lone_surrogate_is_replaced() -> None:
    found = {
        "trace": TRACE,
        "id": ID,
        "name": "a\ud800",
        "begin": 1.0,
        "seconds": 1.0,
        "attributes": {"k\ud800": "\ud800"},
    }
    span = Span.read(found)
    assert (span.name, span.attributes, bounded({"k": "\ud800"})) == ("a?", {"k?": "?"}, {"k": "?"})


def test_no_text_of_a_span_can_fail_the_batch_that_it_is_stored_with() -> None:
    span = Span(TRACE, ID, "", "a\ud800", 1.0, 1.0, error="b\ud800", agent="ĉ\ud800")
    assert (span.name, span.error, span.agent) == ("a?", "b?", "ĉ?")


@pytest.mark.parametrize("text", ["a" * MAX_TEXT, "é" * MAX_TEXT, "😀" * MAX_TEXT, "\x01" * MAX_TEXT])
def test_a_span_counts_at_least_the_bytes_that_it_takes(text: str) -> None:
    span = Span(TRACE, ID, ABOVE, "work", 5.0, 0.5, text, text, {f"{number}": text for number in range(MAX_ATTRIBUTES)})
    assert span.size >= 0.95 * len(json.dumps(span.as_json()))
