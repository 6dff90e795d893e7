"""Bodies of requests become messages: JSON, lines, CloudEvents in each of their modes; what is wrong is named."""

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from meshhost.errors import InvalidRequestError, LimitExceededError
from meshhost.triggers.incoming import MOST_MESSAGES, SendOptions, messages_in

JSON = {"Content-Type": "application/json; charset=utf-8"}
LINES = {"Content-Type": "application/x-ndjson"}
EVENT = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
ATTRIBUTES = {"specversion": "1.0", "id": "A1", "source": "/shop", "type": "order.made"}


def parsed(headers: dict[str, str], body: Any, key: str | None = None) -> list[tuple[Any, dict[str, str], str | None]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = messages_in(CIMultiDict(headers), data, key=key).messages
    return [(json.loads(message.body), dict(message.headers), message.sender_id) for message in found]


def test_one_value_is_one_message() -> None:
    assert parsed(JSON, {"a": "ü"}) == [({"a": "ü"}, {}, None)]
    assert parsed({}, b"\xef\xbb\xbf 5 ", "key") == [(5, {}, "key")]
    assert parsed({"Content-Type": "application/vnd.x+json"}, None) == [(None, {}, None)]
    trace = {"traceparent": "00-1-2-01", "tracestate": "a=b"}
    assert parsed({"Traceparent": "00-1-2-01", "Tracestate": "a=b", "Accept": "x"}, 1) == [(1, trace, None)]


def test_options_hold_for_all_messages_of_a_request() -> None:
    messages = messages_in({}, b"[1, 2]").messages
    options = SendOptions.parse({"delay": "60", "priority": "-5", "key": "k", "ttl": "9.5"})
    for message in options.applied_to(messages, now=1000.0):
        assert (message.delay, message.priority, message.key, message.ttl) == (60.0, -5, "k", 9.5)
    assert [each.delay for each in SendOptions.parse({"at": "1030"}).applied_to(messages, now=1000.0)] == [30.0] * 2
    assert [each.delay for each in SendOptions.parse({"at": "5"}).applied_to(messages, now=1000.0)] == [0.0] * 2
    assert list(SendOptions.parse({}).applied_to(messages, now=0.0)) == list(messages)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"delay": "-1"}, "delay: "),
        ({"delay": "nan"}, "delay: "),
        ({"priority": "101"}, "priority: "),
        ({"priority": "high"}, "priority: "),
        ({"key": ""}, "key: "),
        ({"ttl": "0"}, "ttl: "),
        ({"dealy": "5"}, "dealy: "),
        ({"delay": "1", "at": "1"}, "at: expected `delay` or `at`, not both"),
        ({"at": "1e12"}, "at: expected a time within "),
    ],
)
def test_an_option_that_cannot_be_is_named(query: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{says}"):
        SendOptions.parse(query).applied_to([], now=0.0)


def test_a_key_is_remembered_for_a_day() -> None:
    event = json.dumps(ATTRIBUTES).encode()
    for headers, body, key in ((JSON, b"1", "k"), (JSON, b"[1]", "k"), (EVENT, event, None)):
        [message] = messages_in(CIMultiDict(headers), body, key=key).messages
        assert message.remember_seconds == 24 * 3600.0
    assert messages_in({}, b"1").messages[0].remember_seconds is None


def test_an_array_and_lines_are_many_messages_with_a_name_each() -> None:
    expected = [(1, {}, "k:0"), ([2], {}, "k:1"), ("x", {}, "k:2")]
    assert parsed(JSON, [1, [2], "x"], "k") == expected
    assert parsed(LINES, b'1\r\n\n[2]\n"x"\n', "k") == expected
    assert messages_in(LINES | {"content-type": LINES["Content-Type"]}, b"1").is_many
    assert messages_in({}, b"[1]").is_many
    assert not messages_in({}, b"1").is_many
    assert [name for _, _, name in parsed(JSON, [1, 2])] == [None, None]


def test_a_cloudevent_in_structured_mode() -> None:
    event = ATTRIBUTES | {"datacontenttype": "application/json", "attempt": 3, "test": True, "subject": None}
    [(message, headers, name)] = parsed(EVENT, event | {"data": {"n": 1}})
    assert message == {"n": 1}
    assert headers == {f"ce-{key}": value for key, value in ATTRIBUTES.items()} | {
        "ce-datacontenttype": "application/json",
        "ce-attempt": "3",
        "ce-test": "true",
    }
    assert name is not None
    assert name == parsed(EVENT, event)[0][2]
    assert name != parsed(EVENT, event | {"source": "/else"})[0][2]
    assert parsed(EVENT, event, "key")[0][2] == "key"
    assert parsed(EVENT, event)[0][0] is None
    [(message, headers, _)] = parsed(EVENT, event | {"data_base64": "AAEC"})
    assert (message, headers["content-transfer-encoding"]) == ("AAEC", "base64")


def test_cloudevents_in_a_batch() -> None:
    found = parsed(BATCH, [ATTRIBUTES | {"data": n, "id": str(n)} for n in range(2)])
    assert [message for message, _, _ in found] == [0, 1]
    assert len({name for _, _, name in found}) == 2
    assert [name for _, _, name in parsed(BATCH, [ATTRIBUTES] * 2, "k")] == ["k:0", "k:1"]


def test_a_cloudevent_in_binary_mode() -> None:
    binary = {f"Ce-{key.title()}": value for key, value in ATTRIBUTES.items()} | {"CE-Subject": "Gr%C3%BC%C3%9Fe"}
    [(message, headers, name)] = parsed(binary | JSON, {"n": 1})
    assert message == {"n": 1}
    assert (headers["ce-id"], headers["ce-subject"]) == ("A1", "Grüße")
    assert headers["ce-datacontenttype"] == JSON["Content-Type"]
    assert name == parsed(EVENT, ATTRIBUTES)[0][2]  # the same event in another mode
    assert parsed(binary, b"")[0][0] is None
    assert parsed(binary, b"[1]")[0][0] == [1]  # data, not a batch
    assert parsed(binary | {"content-type": "text/plain"}, "ü".encode())[0][0] == "ü"
    [(message, headers, _)] = parsed(binary | {"content-type": "image/png"}, b"\0\1\2")
    assert (message, headers["content-transfer-encoding"]) == ("AAEC", "base64")
    with pytest.raises(InvalidRequestError, match="body: not UTF-8 at byte 0"):
        parsed(binary | {"content-type": "text/plain"}, b"\xff")


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        (JSON, b"{", "body: not JSON: .* at line 1, column 2"),
        (JSON, b"\xff", "body: not UTF-8 at byte 0"),
        (JSON, b"NaN", "body: not JSON"),
        (JSON, b"[" * 200_000, "body: the JSON is nested too deeply"),
        (JSON, b"", "body: not JSON"),
        (JSON, b"[]", "body: expected at least one message"),
        (LINES, b"\n", "body: expected at least one message"),
        (LINES, b"1\n{\n", r"messages\[1\]: not JSON"),
        ({"content-type": "text/xml"}, b"", "Content-Type: expected application/json, .*, not 'text/xml'"),
        (EVENT, b"[]", "body: expected a CloudEvent"),
        (BATCH, b"{}", "body: expected an array of CloudEvents"),
        (BATCH, b"[1]", r"messages\[0\]: expected a CloudEvent"),
        (EVENT, ATTRIBUTES | {"id": ""}, "body.id: expected the attribute of a CloudEvent"),
        (EVENT, ATTRIBUTES | {"specversion": "0.3"}, "body.specversion: expected a CloudEvent of version 1.0"),
        (EVENT, ATTRIBUTES | {"a-b": "x"}, "body.a-b: expected the attribute"),
        (EVENT, ATTRIBUTES | {"list": []}, "body.list: expected the attribute"),
        (EVENT, ATTRIBUTES | {"data_base64": "?"}, "body.data_base64: expected base64"),
        (EVENT, ATTRIBUTES | {"subject": "a\r\nb: c"}, "body.subject: expected a text without control characters"),
        (BATCH, [ATTRIBUTES | {"id": "a\nb"}], r"messages\[0\]\.id: expected a text without control characters"),
        (EVENT, ATTRIBUTES | {"datacontenttype": "a\0"}, "body.datacontenttype: expected a text without control"),
        (
            {f"ce-{name}": text for name, text in ATTRIBUTES.items()} | {"ce-subject": "a%0D%0Ab: c"},
            b"1",
            "body.subject: expected a text without control characters",
        ),
        (EVENT, ATTRIBUTES | {"data_base64": 5}, "body.data_base64: expected base64"),
        (EVENT, ATTRIBUTES | {f"a{n}": "" for n in range(50)}, "body: expected at most 50 attributes"),
        ({"ce-specversion": "1.0"}, b"", "body.id: expected the attribute of a CloudEvent"),
    ],
)
def test_what_is_wrong_is_named(headers: dict[str, str], body: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        parsed(headers, body)


def test_keys_and_numbers_of_messages_are_bounded() -> None:
    for key in ("", "x" * 201, "a\nb"):
        with pytest.raises(InvalidRequestError, match="Idempotency-Key: expected 1 to 200 printable characters"):
            parsed(JSON, 1, key)
    with pytest.raises(LimitExceededError, match="1001 messages in one request, at most 1000 are taken"):
        parsed(JSON, [0] * (MOST_MESSAGES + 1))


def test_a_key_that_only_the_server_gives_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="Idempotency-Key: expected a text that does not begin with"):
        messages_in({}, b"1", key="meshhost:hook:0000:1")
