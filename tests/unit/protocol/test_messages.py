"""Header and payload of a message, and the bodies of replies."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError, RoomError, TooLargeError
from meshhost.protocol.messages import (
    EmptyResponse,
    EncodedJson,
    ErrorResponse,
    JsonResponse,
    RawOutputs,
    Response,
    TextResponse,
    ensure_response,
    pack_message,
    pack_response,
    unpack_message,
    unpack_response,
    wire_safe,
)
from tests.unit.protocol.vectors import BAD_BODIES, RESPONSES, UNREADABLE, framed

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
headers = st.dictionaries(st.text(), json_values, max_size=4)
# Python refuses to read it; a browser reads it as infinity.
OVERLONG_NUMBER = framed(b'{"a": ' + b"9" * 10_000 + b"}")


def test_a_message_is_packed_as_the_protocol_says() -> None:
    assert pack_message({"a": 1}, b"xyz") == b"\x00" * 7 + b"\x08" + b'{"a": 1}' + b"xyz"
    assert pack_message({}) == b"\x00" * 7 + b"\x02" + b"{}"


@given(header=headers, payload=st.binary(max_size=50))
def test_any_header_and_payload_survive(header: dict[str, Any], payload: bytes) -> None:
    assert unpack_message(pack_message(header, payload)) == (header, payload)


def test_values_json_does_not_know_become_texts() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)

    assert unpack_message(pack_message({"at": moment}))[0] == {"at": str(moment)}


@pytest.mark.parametrize(
    "raw",
    [*UNREADABLE, OVERLONG_NUMBER],
    ids=range(len(UNREADABLE) + 1),
)
def test_a_message_without_a_json_object_as_header_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        unpack_message(raw)

    assert caught.value.field == "message"


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(framed)))
def test_any_bytes_are_a_message_or_refused(raw: bytes) -> None:
    try:
        header, payload = unpack_message(raw)
    except InvalidRequestError:
        return
    assert isinstance(header, dict)
    assert raw.endswith(payload)


@pytest.mark.parametrize("response", RESPONSES, ids=range(len(RESPONSES)))
def test_a_body_survives_the_wire(response: Response) -> None:
    header, payload = unpack_message(pack_response(response))

    assert header["type"] == response.type
    assert "usage" in header
    assert unpack_response(header, payload) == response


def test_further_members_travel_beside_a_body_and_are_ignored_in_it() -> None:
    header, payload = unpack_message(pack_response(TextResponse(text="hi"), {"message_id": "m", "count": 2}))

    assert header == {"type": "text", "text": "hi", "usage": None, "message_id": "m", "count": 2}
    assert unpack_response(header, payload) == TextResponse(text="hi")


@pytest.mark.parametrize(
    ("header", "field"),
    BAD_BODIES,
)
def test_a_malformed_body_is_refused_by_the_name_of_the_member(header: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        unpack_response(header, b"")

    assert caught.value.field == field


@pytest.mark.parametrize("code", ["1001", None, True, 1.5])
def test_an_error_number_that_is_none_is_left_out(code: Any) -> None:
    assert unpack_response({"type": "error", "text": "no", "code": code}, b"") == ErrorResponse(text="no")


@pytest.mark.parametrize("usage", ["much", 5, []])
def test_a_usage_of_a_wrong_kind_is_left_out(usage: Any) -> None:
    assert unpack_response({"type": "empty", "usage": usage}, b"") == EmptyResponse()


@given(header=headers | headers.map(lambda header: header | {"type": "json"}), payload=st.binary(max_size=5))
def test_any_header_is_a_body_or_refused(header: dict[str, Any], payload: bytes) -> None:
    try:
        response = unpack_response(header, payload)
    except InvalidRequestError:
        return
    assert response.type == header["type"]


def test_an_error_without_a_number_does_not_mention_one() -> None:
    assert "code" not in ErrorResponse(text="no").to_json()


def test_the_members_of_a_json_body_are_at_hand() -> None:
    assert JsonResponse(json={"a": 1})["a"] == 1


def test_what_a_tool_returns_becomes_a_body() -> None:
    assert ensure_response(None) == EmptyResponse()
    assert ensure_response("hi") == TextResponse(text="hi")
    assert ensure_response({"a": 1}) == JsonResponse(json={"a": 1})
    for response in RESPONSES:
        assert ensure_response(response) is response


def test_a_tool_may_not_return_anything_else() -> None:
    with pytest.raises(RoomError, match="not bytes") as caught:
        ensure_response(b"hidden")

    assert "hidden" not in str(caught.value)


def test_raw_outputs_are_made_readable_for_every_client() -> None:
    safe = wire_safe(RawOutputs(outputs=[{"a": 1}], usage={"tokens": 2}))

    assert safe == JsonResponse(json={"outputs": [{"a": 1}]}, usage={"tokens": 2})
    header, _ = unpack_message(pack_response(safe))
    assert json.loads(json.dumps(header))["type"] == "json"


@pytest.mark.parametrize("response", RESPONSES[:-1], ids=range(len(RESPONSES) - 1))
def test_every_other_body_is_wire_safe_as_it_is(response: Response) -> None:
    assert wire_safe(response) is response


def test_what_was_encoded_before_arrives_like_any_other_json() -> None:
    encoded = EncodedJson(text='{"files": [1, "é"]}', usage={"n": 1})

    header, payload = unpack_message(pack_response(encoded, {"more": 2}))
    assert unpack_response(header, payload) == JsonResponse(json={"files": [1, "é"]}, usage={"n": 1})
    assert header["more"] == 2
    assert EncodedJson().text == "null"


def test_a_header_that_is_much_more_when_it_is_read_is_refused_by_who_bounds_headers() -> None:
    many = pack_message({"message": [[]] * 250_000})
    few = pack_message({"message": "[],{}:" * 50_000})
    with pytest.raises(TooLargeError, match="parts"):
        unpack_message(many, max_header_bytes=2**20)
    assert len(unpack_message(many)[0]["message"]) == 250_000
    assert unpack_message(few, max_header_bytes=2**20)[0]["message"].startswith("[]")
