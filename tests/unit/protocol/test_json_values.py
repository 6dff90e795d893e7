"""NaN and Infinity are not JSON: nothing writes them, nothing takes them, and what was stored before is still readable."""

import json
import math
from typing import Any

import pytest

from meshhost.errors import InvalidRequestError
from meshhost.protocol import json_values
from meshhost.protocol.json_values import (
    check_finite,
    dump_json,
    has_few_parts,
    load_header,
    load_json,
    load_stored_json,
)
from meshhost.protocol.messages import JsonResponse, pack_message, pack_response, unpack_message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_not_written(number):
    for write in (
        lambda: dump_json([number]),
        lambda: pack_message({"x": {"y": number}}),
        lambda: pack_response(JsonResponse(json=number)),
    ):
        with pytest.raises(InvalidRequestError, match="NaN and Infinity"):
            write()


@pytest.mark.parametrize("text", ["NaN", '{"x": -Infinity}', "[1e999]"])
def test_what_is_not_a_number_is_not_read(text):
    with pytest.raises(ValueError, match=r"JSON value|too large"):
        load_json(text)
    if "e999" not in text:
        with pytest.raises(ValueError, match="JSON value"):
            load_header(text.encode())


def test_a_message_with_nan_is_refused():
    header = b'{"message": NaN}'
    with pytest.raises(InvalidRequestError, match="not JSON"):
        unpack_message(len(header).to_bytes(8, "big") + header)


def test_what_an_older_version_stored_is_read_as_null():
    assert load_stored_json('{"x": NaN, "y": [Infinity, 1.5]}') == {"x": None, "y": [None, 1.5]}


def test_a_header_may_have_surrogates_and_a_mark_of_its_encoding():
    assert load_header(b'\xef\xbb\xbf{"x": "\\ud83d"}') == {"x": "\ud83d"}


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


def test_a_number_is_read_as_it_is():
    assert load_json("[1.5, -2e10]") == [1.5, -2e10]


def test_a_key_that_is_no_json_has_no_field_to_name():
    check_finite({float("nan"): 1}, "message")
    with pytest.raises(InvalidRequestError, match="NaN and Infinity"):
        dump_json({float("nan"): 1})


def test_json_is_the_same_where_python_has_no_compiled_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"a": [1, 2.5, None, True, "ä"], "b": {"c": {}}}
    expected = json_values.dump_json(value)
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    assert json_values._fast(json_values._ENCODER)(value) == expected


def test_a_value_that_holds_itself_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(InvalidRequestError, match="Circular reference"):
        json_values.dump_json(circle)
    assert json_values.check_finite(circle, "x") == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"", 0),
        (b"12", 1),
        (b"[]", 2),
        (b"[1,2,3]", 4),
        (b'{"a": 1, "b": [2]}', 8),
        (b'["a, [b] {c}: d"]', 3),
        (rb'["a\", [1,2,3,4,5,6,7,8,9]"]', 3),
        (rb'["a\\", [1], "b"]', 7),
        ('["ü, ü"]'.encode(), 3),
    ],
)
def test_parts_of_a_json_text_are_counted_without_what_is_in_its_texts(text, parts):
    assert has_few_parts(text, most=parts)
    assert parts == 0 or not has_few_parts(text, most=parts - 1)


def test_a_text_that_does_not_end_is_left_to_the_reader():
    assert has_few_parts(b'["' + b"," * 1000, most=10)
