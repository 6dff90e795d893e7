"""One side of a room connection: requests find their replies, and what is broken stays with whoever sent it."""

import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshhost.errors import InvalidRequestError, LimitExceededError, LocalProtocolError, RemoteProtocolError
from meshhost.protocol.connection import (
    RESPONSE,
    Event,
    MalformedMessage,
    MessageReceived,
    ReplyReceived,
    RoomConnection,
)
from meshhost.protocol.frames import Limits, Message, packets
from meshhost.protocol.messages import (
    EmptyResponse,
    ErrorResponse,
    FileResponse,
    JsonResponse,
    TextResponse,
    pack_message,
)

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def deliver(connection: RoomConnection, stream: Iterable[bytes]) -> Event | None:
    """Feed the packets of one message; return the event that the last one completes."""
    *before, last = stream
    assert [connection.receive(packet) for packet in before] == [None] * len(before)
    return connection.receive(last)


def raw_message(message_id: int, type: str, data: bytes) -> list[bytes]:
    return list(packets(Message(message_id, type, data)))


def test_a_request_arrives_with_its_header_payload_and_trace() -> None:
    client, server = RoomConnection(slice_bytes=3), RoomConnection()

    message_id, packed = client.request("storage.write", {"path": "x"}, b"bytes", trace=TRACE)

    assert deliver(server, packed) == MessageReceived(message_id, "storage.write", {"path": "x"}, b"bytes", TRACE)
    assert client.awaited == {message_id}
    assert server.awaited == frozenset()


def test_replies_find_their_requests_in_any_order() -> None:
    client, server = RoomConnection(), RoomConnection()
    first, _ = client.request("a", {})
    second, _ = client.request("b", {})

    late = deliver(client, server.reply(second, TextResponse(text="two"), {"count": 2}))
    early = deliver(client, server.reply(first, FileResponse(data=b"1", name="n", mime_type="m")))

    assert isinstance(late, ReplyReceived)
    assert (late.id, late.response, late.extra["count"]) == (second, TextResponse(text="two"), 2)
    assert isinstance(early, ReplyReceived)
    assert (early.id, early.response) == (first, FileResponse(data=b"1", name="n", mime_type="m"))
    assert client.awaited == frozenset()


def test_a_reply_nobody_waits_for_is_dropped() -> None:
    client, server = RoomConnection(), RoomConnection()
    message_id, _ = client.request("a", {})

    assert deliver(client, server.reply(message_id + 1, EmptyResponse())) is None
    assert deliver(client, raw_message(message_id + 1, RESPONSE, b"unreadable")) is None
    assert client.awaited == {message_id}


def test_a_second_reply_is_dropped() -> None:
    client, server = RoomConnection(), RoomConnection()
    message_id, _ = client.request("a", {})

    assert deliver(client, server.reply(message_id, EmptyResponse())) is not None
    assert deliver(client, server.reply(message_id, EmptyResponse())) is None


def test_a_reply_to_an_abandoned_request_is_dropped() -> None:
    client, server = RoomConnection(), RoomConnection()
    message_id, _ = client.request("a", {})

    client.abandon(message_id)
    client.abandon(message_id)

    assert deliver(client, server.reply(message_id, EmptyResponse())) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 8, b"\xff" * 20, pack_message({"type": "picture"}), pack_message({"type": "text"}, b"hidden")],
)
def test_a_malformed_reply_ends_the_wait(data: bytes) -> None:
    client = RoomConnection()
    message_id, _ = client.request("a", {})

    event = deliver(client, raw_message(message_id, RESPONSE, data))

    assert isinstance(event, ReplyReceived)
    assert isinstance(event.response, ErrorResponse)
    assert event.id == message_id
    assert event.response.text.startswith("unreadable reply: ")
    assert "hidden" not in event.response.text
    assert client.awaited == frozenset()


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, pack_message({})[:-1]])
def test_a_malformed_request_can_be_answered_and_the_stream_goes_on(data: bytes) -> None:
    server = RoomConnection()

    event = deliver(server, raw_message(5, "queues.send", data))

    assert isinstance(event, MalformedMessage)
    assert (event.id, event.type) == (5, "queues.send")
    assert isinstance(event.error, InvalidRequestError)
    assert deliver(server, raw_message(6, "t", pack_message({}))) == MessageReceived(6, "t", {}, b"", {})


@pytest.mark.parametrize("message_id", [0, 2**64 - 1])
def test_the_ids_of_the_other_side_may_be_the_smallest_and_the_largest(message_id: int) -> None:
    client, server = RoomConnection(), RoomConnection()

    event = deliver(server, raw_message(message_id, "t", pack_message({})))

    assert isinstance(event, MessageReceived)
    assert event.id == message_id
    assert struct.unpack_from(">Q", next(iter(server.reply(message_id, EmptyResponse()))))[0] == message_id
    assert deliver(client, server.reply(message_id, EmptyResponse())) is None


def test_a_notification_is_not_awaited_and_ids_are_unique() -> None:
    connection = RoomConnection()

    ids = [connection.notify("n", {})[0], connection.request("r", {})[0], connection.notify("n", {})[0]]

    assert len(set(ids)) == 3
    assert connection.awaited == {ids[1]}


def test_a_body_can_travel_under_another_type() -> None:
    connection = RoomConnection()

    event = deliver(connection, connection.respond(3, "agent.tool_call_response", JsonResponse(json=1), {"to": "p"}))

    header = {"type": "json", "json": 1, "usage": None, "to": "p"}
    assert event == MessageReceived(3, "agent.tool_call_response", header, b"", {})


@pytest.mark.parametrize(
    ("meta", "trace"),
    [
        ({"v": 1, "otel": TRACE}, TRACE),
        ({"v": 1, "otel": {"traceparent": 5} | TRACE}, TRACE),
        ({"v": 1, "otel": None}, {}),
        ({"v": 1}, {}),
        ("odd", {}),
        (None, {}),
    ],
)
def test_the_member_of_the_sdk_is_taken_out_of_the_header(meta: Any, trace: dict[str, str]) -> None:
    event = deliver(RoomConnection(), raw_message(1, "t", pack_message({"a": 1, "__meshagent__": meta})))

    assert event == MessageReceived(1, "t", {"a": 1}, b"", trace)


def test_the_trace_is_sent_only_when_there_is_one() -> None:
    connection = RoomConnection()

    assert b"__meshagent__" not in b"".join(connection.notify("t", {})[1])
    assert b"__meshagent__" in b"".join(connection.notify("t", {}, trace=TRACE)[1])


def test_the_header_of_the_caller_is_left_as_it_was() -> None:
    header = {"a": 1}

    RoomConnection().request("t", header, trace=TRACE)

    assert header == {"a": 1}


def test_what_is_too_large_is_refused_before_anything_is_changed() -> None:
    connection = RoomConnection(limits=Limits(message_bytes=64, type_bytes=4))

    for _ in range(2):
        with pytest.raises(LimitExceededError):
            connection.request("t", {}, b"x" * 64)
        with pytest.raises(LocalProtocolError):
            connection.request("types", {})
        with pytest.raises(LocalProtocolError):
            connection.notify("ééé", {})
    with pytest.raises(LimitExceededError):
        connection.reply(1, TextResponse(text="x" * 64))
    with pytest.raises(LocalProtocolError):
        connection.respond(1, "types", EmptyResponse())

    assert connection.awaited == frozenset()
    assert connection.request("t", {})[0] == 1


def test_a_broken_stream_raises_and_nothing_of_it_is_delivered_later() -> None:
    server = RoomConnection()
    *begun, _ = RoomConnection(slice_bytes=1).request("a", {}, b"secret")[1]
    for packet in begun:
        server.receive(packet)

    with pytest.raises(RemoteProtocolError):
        server.receive(raw_message(9, "b", pack_message({}))[0])
    assert deliver(server, raw_message(10, "c", pack_message({}))) == MessageReceived(10, "c", {}, b"", {})


@given(
    stream=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.tuples(st.integers(0, 3), st.sampled_from([RESPONSE, "t"]), st.binary(max_size=20)),
            st.builds(
                lambda message_id, kind, header: (message_id, kind, pack_message(header)),
                st.integers(0, 3),
                st.sampled_from([RESPONSE, "t"]),
                st.dictionaries(
                    st.sampled_from(["type", "json", "text", "code", "__meshagent__"]),
                    st.sampled_from(["json", "text", "error", None, 5, {"otel": {"a": 1}}]),
                ),
            ),
        ),
        max_size=8,
    )
)
def test_any_bytes_raise_nothing_but_protocol_errors(stream: list[bytes | tuple[int, str, bytes]]) -> None:
    connection = RoomConnection()
    connection.request("a", {})
    connection.request("b", {})
    for item in stream:
        for packet in [item] if isinstance(item, bytes) else raw_message(*item):
            try:
                connection.receive(packet)
            except RemoteProtocolError:
                continue


def test_a_request_over_the_limit_can_be_answered_under_its_id() -> None:
    receiver = RoomConnection(limits=Limits(message_bytes=100))
    _, sent = RoomConnection().request("big", {"text": "x" * 200})
    events = [event for packet in sent if (event := receiver.receive(packet)) is not None]

    [event] = events
    assert isinstance(event, MalformedMessage)
    assert (event.id, event.type) == (1, "big")
    assert isinstance(event.error, LimitExceededError)


def test_a_reply_over_the_limit_ends_the_wait() -> None:
    asker = RoomConnection(limits=Limits(message_bytes=100))
    request_id, _ = asker.request("ask", {})
    answer = RoomConnection().reply(request_id, TextResponse(text="x" * 200))
    events = [event for packet in answer if (event := asker.receive(packet)) is not None]

    [event] = events
    assert isinstance(event, ReplyReceived)
    assert isinstance(event.response, ErrorResponse)
    assert asker.awaited == frozenset()


@pytest.mark.parametrize("slice_bytes", [4, 20, 1000])
def test_a_header_over_the_limit_is_refused_before_it_is_read(slice_bytes: int) -> None:
    server = RoomConnection(limits=Limits(header_bytes=40))
    not_json = struct.pack(">Q", 41) + b"{" * 41

    event = deliver(server, packets(Message(1, "t", not_json), slice_bytes=slice_bytes))

    assert isinstance(event, MalformedMessage)
    assert str(event.error) == "header of 41 bytes, at most 40: send what is large as bytes, or as a file"
    fits = {"a": "x" * 31}
    assert deliver(server, raw_message(2, "t", pack_message(fits, b"p" * 100))) == MessageReceived(
        2, "t", fits, b"p" * 100, {}
    )


def test_a_message_that_was_dropped_can_be_answered() -> None:
    server = RoomConnection()
    first, last = packets(Message(1, "t", pack_message({})))
    server.receive(first)
    assert server.is_receiving
    server.drop_unfinished("and no room for it now")
    assert server.is_dropping
    event = server.receive(last)

    assert isinstance(event, MalformedMessage)
    assert "no room for it now" in str(event.error)
    assert not server.is_receiving
