"""The dialect of SDK 0.56: who is recognised, what is refused before a service sees it, and what answers and events become."""

from typing import Any

import pytest

from meshhost.errors import InvalidRequestError, LimitExceededError, NotFoundError, RoomError
from meshhost.protocol.connection import RESUME_HEADER, MessageReceived
from meshhost.protocol.messages import EmptyResponse, ErrorResponse, JsonResponse, TextResponse
from meshhost.server.core.peer import CloseReason, Event
from meshhost.server.wire.dialect import Handshake
from meshhost.server.wire.sdk056 import SDK_056
from meshhost.server.wire.sdk056.translator import MAX_STREAMS, Translator056

PYTHON = Handshake({"Authorization": "Bearer a.b.c"}, {"v": "0.56.0"})
JAVASCRIPT = Handshake({}, {"token": "a.b.c"})
OPENING = {"type": "control", "method": "open"}


@pytest.fixture
def python() -> Translator056:
    return SDK_056.translator(PYTHON)


@pytest.fixture
def javascript() -> Translator056:
    return SDK_056.translator(JAVASCRIPT)


def invoke(translator: Translator056, **header: Any) -> tuple[str, MessageReceived]:
    payload = header.pop("payload", b"")
    return translator.request(MessageReceived(1, "room.invoke_tool", header, payload, {}))


@pytest.mark.parametrize(
    ("handshake", "expected"),
    [
        (PYTHON, True),
        (JAVASCRIPT, True),
        (Handshake({}, {"token": "a.b.c", "v": "0.6.13"}), False),
        (Handshake({"Authorization": "Bearer a.b.c", RESUME_HEADER: "-"}, {}), False),
        (Handshake({}, {"token": "a.b.c", "resume": "-"}), False),
        (Handshake({"Authorization": "Bearer a.b.c"}, {}), False),
    ],
    ids=["python", "javascript", "0.6", "ours", "ours in a browser", "neither"],
)
def test_a_client_is_recognised_by_its_handshake(handshake: Handshake, expected: bool) -> None:
    assert SDK_056.matches(handshake) is expected


@pytest.mark.parametrize(("status", "told"), [(401, 403), (403, 403), (404, 404), (503, 503)])
def test_a_refusal_for_good_is_one_that_these_clients_take_as_such(status: int, told: int) -> None:
    assert SDK_056.refusal_status(status) == told


def test_a_built_in_tool_asks_for_an_operation(python: Translator056) -> None:
    content = {"type": "json", "json": {"name": "jobs", "message": {"n": 1}}}
    operation, message = invoke(python, toolkit="queues", tool="send", arguments=content)
    assert (operation, message.header) == ("queues.send", content["json"])


def test_a_message_is_unpacked_from_its_texts(python: Translator056) -> None:
    arguments = {"to_participant_id": "p", "type": "t", "message_json": '{"a": 1}', "attachment_base64": "AAE="}
    content = {"type": "json", "json": arguments}
    operation, message = invoke(python, toolkit="messaging", tool="send", arguments=content)
    assert (operation, message.payload) == ("messaging.send", b"\x00\x01")
    assert message.header == {"to_participant_id": "p", "type": "t", "message": {"a": 1}}


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"toolkit": "dataset", "tool": "search"}, NotFoundError),
        ({"toolkit": "queues", "tool": "explode", "arguments": None}, NotFoundError),
        ({"toolkit": "queues", "tool": "send", "arguments": {"type": "text", "text": "x"}}, InvalidRequestError),
        ({"toolkit": "queues", "tool": "send", "arguments": {"type": "json", "json": [1]}}, InvalidRequestError),
        ({"toolkit": "queues", "tool": "send", "arguments": OPENING, "tool_call_id": "c"}, InvalidRequestError),
        ({"toolkit": "mine", "tool": "t", "arguments": OPENING}, InvalidRequestError),
        ({"toolkit": "messaging", "tool": "stream", "arguments": None, "tool_call_id": "c"}, InvalidRequestError),
        ({"toolkit": "storage", "tool": "upload", "arguments": None, "tool_call_id": "c"}, InvalidRequestError),
        ({"toolkit": "storage", "tool": "upload", "arguments": OPENING}, InvalidRequestError),
        (
            {"toolkit": "storage", "tool": "upload", "arguments": OPENING, "tool_call_id": "x" * 129},
            InvalidRequestError,
        ),
        (
            {"toolkit": "messaging", "tool": "send", "arguments": {"type": "json", "json": {"message_json": "{"}}},
            InvalidRequestError,
        ),
        (
            {"toolkit": "messaging", "tool": "send", "arguments": {"type": "json", "json": {"attachment_base64": "*"}}},
            InvalidRequestError,
        ),
    ],
)
def test_what_cannot_be_translated_is_refused(
    python: Translator056, header: dict[str, Any], error: type[RoomError]
) -> None:
    with pytest.raises(error):
        invoke(python, **header)


def test_the_streams_of_a_connection_are_bounded(python: Translator056) -> None:
    def opened(call: str) -> Any:
        return invoke(python, toolkit="storage", tool="download", arguments=OPENING, tool_call_id=call)[1].header[
            "stream"
        ]

    peer: Any = object()

    def kept(call: str) -> Any:
        stream = opened(call)
        stream.peer = peer
        return stream

    streams = [kept(str(number)) for number in range(MAX_STREAMS)]
    with pytest.raises(InvalidRequestError, match="names no other call"):
        opened("0")
    with pytest.raises(LimitExceededError):
        opened("one more")
    streams[0].is_ended = True
    for _ in range(2):  # one that the dispatcher refused does not count
        assert opened("one more").call == "one more"


def test_a_chunk_of_no_stream_is_one_of_none(python: Translator056) -> None:
    for header in ({"tool_call_id": "unknown", "chunk": {}}, {"chunk": "x"}, {"tool_call_id": ["a"]}):
        message = MessageReceived(1, "room.tool_call_request_chunk", header, b"", {})
        assert python.request(message)[1].header["stream"] is None


def test_a_registered_tool_has_the_schema_that_older_clients_read(python: Translator056) -> None:
    schema = {"type": "object"}
    tools = {"a": {"input_spec": {"types": ["json"], "schema": schema}}, "b": {"input_spec": None}, "c": "x"}
    message = MessageReceived(1, "room.register_toolkit", {"name": "k", "tools": tools}, b"", {})
    operation, translated = python.request(message)
    assert operation == "agent.register_toolkit"
    assert translated.header["tools"]["a"]["input_schema"] == schema
    assert translated.header["tools"]["b"] == {"input_spec": None}
    for odd in ({"name": "k"}, {"name": "k", "tools": []}):
        assert python.request(MessageReceived(1, "room.register_toolkit", odd, b"", {}))[1].header == odd


def test_answers_have_the_form_that_these_clients_accept(python: Translator056, javascript: Translator056) -> None:
    error = ErrorResponse(text="no", code=1003)
    assert python.answer("queues.send", error, None) == (error, None)
    assert python.answer("queues.send", JsonResponse(json={"id": "1"}), {"id": "1"}) == (EmptyResponse(), {"id": "1"})
    text = TextResponse(text="hello")
    assert python.answer("queues.receive", text, None) == (text, None)
    assert javascript.answer("queues.receive", text, None) == (JsonResponse(json="hello"), None)


def test_a_tool_call_reaches_each_generation_in_its_form(python: Translator056, javascript: Translator056) -> None:
    body = {"toolkit": "k", "name": "t", "arguments": {"a": 1}, "caller_id": "c", "caller_context": None}
    event = Event("agent.tool_call", {**body, "on_behalf_of_id": None})
    kind, header, _ = python.event(event)
    assert kind == "room.tool_call.k"
    assert header["arguments"] == {"type": "json", "json": {"a": 1}}
    assert header["tool_call_id"]
    assert header.keys() == {"name", "arguments", "caller_id", "tool_call_id"}
    # One in JavaScript may be of either generation until it shows which.
    assert javascript.event(event)[0] == "agent.tool_call.k"
    javascript.request(MessageReceived(1, "room.list_toolkits", {}, b"", {}))
    assert javascript.event(event)[0] == "room.tool_call.k"


def test_older_words_pass_as_they_always_did(javascript: Translator056) -> None:
    message = MessageReceived(1, "room.connect", {"path": "p"}, b"", {})
    assert javascript.request(message)[0] == "sync.open"
    assert javascript.close_code(CloseReason.SERVER_STOPPING) == 1001


def test_the_end_of_a_connection_is_one_that_each_client_understands(
    python: Translator056, javascript: Translator056
) -> None:
    invoke(javascript, toolkit="queues", tool="list", arguments=None)
    for translator in (python, javascript):
        assert translator.close_code(CloseReason.SERVER_STOPPING) is None
    assert python.close_code(CloseReason.ACCESS_REVOKED) == 4001
    assert javascript.close_code(CloseReason.ROOM_ENDED) == 1000
