"""The dialect of SDK 0.6 on the wire, and the choice of a dialect."""

import pytest

from meshhost.errors import ConnectionLostError, InvalidRequestError
from meshhost.protocol.connection import RESUME_HEADER, MessageReceived
from meshhost.protocol.messages import EmptyResponse, JsonResponse, RawOutputs
from meshhost.room.reconnect import is_final
from meshhost.server.core.peer import Capability, CloseReason, Event
from meshhost.server.wire.dialect import Dialects, Handshake, Welcome
from meshhost.server.wire.sdk06 import SDK_06
from meshhost.tenant_names import learn

PLAIN = Handshake({}, {})
TRANSLATOR = SDK_06.translator(PLAIN)


@pytest.mark.parametrize(
    ("word", "operation"),
    [
        ("room.sync", "sync.update"),
        ("room.connect", "sync.open"),
        ("room.create", "sync.create"),
        ("room.disconnect", "sync.close"),
        ("queues.send", "queues.send"),
        ("what.is", "what.is"),
    ],
)
def test_a_message_asks_for_an_operation(word: str, operation: str) -> None:
    message = MessageReceived(1, word, {"a": 1}, b"x", {})
    found, translated = TRANSLATOR.request(message)
    assert found == operation
    # Nothing is copied on the way of every message.
    assert translated is message


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (Event("sync.update", {"path": "p"}, b"u"), ("room.sync", {"path": "p"}, b"u")),
        (Event("messaging.message", {"type": "t"}, b"x"), ("messaging.send", {"type": "t"}, b"x")),
        (Event("agent.tool_call", {"toolkit": "k", "name": "t"}, b"x"), ("agent.tool_call.k", {"name": "t"}, b"x")),
        (Event("agent.ask", {"task_id": "1"}), ("agent.ask", {"task_id": "1"}, b"")),
        (
            Event("attributes.refused", {"message": "too long"}),
            ("room.status", {"status": "refused", "message": "too long"}, b""),
        ),
        (Event("storage.file.updated", {"path": "p"}), ("storage.file.updated", {"path": "p"}, b"")),
    ],
    ids=lambda each: each.name if isinstance(each, Event) else "",
)
def test_an_event_has_the_name_and_body_of_the_wire(event: Event, wire: tuple[str, dict[str, str], bytes]) -> None:
    before = dict(event.body)
    assert TRANSLATOR.event(event) == wire
    assert event.body == before, "one event is shared by all receivers of a broadcast"


def test_a_client_comes_back_after_those_ends_only_that_are_for_the_moment() -> None:
    codes = {reason: TRANSLATOR.close_code(reason) for reason in CloseReason}
    assert len(set(codes.values())) == len(codes)
    # RFC 6455: an endpoint may send these of the registered codes, and those from 4000 on are for applications.
    assert all(
        (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 4000 <= code < 5000 for code in codes.values()
    )
    returning = {reason for reason in CloseReason if not is_final(ConnectionLostError("", close_code=codes[reason]))}
    assert returning == {CloseReason.TOO_SLOW, CloseReason.SERVER_STOPPING}


def test_an_answer_that_hangs_old_clients_is_turned_into_json() -> None:
    answer = TRANSLATOR.answer("agent.invoke_tool", RawOutputs(outputs=[1]), {"more": 2})
    assert answer == (JsonResponse(json={"outputs": [1]}), {"more": 2})
    same = EmptyResponse()
    assert TRANSLATOR.answer("queues.open", same, None)[0] is same


def test_the_greeting_is_the_one_of_the_protocol() -> None:
    welcome = Welcome("r", "ws://h/rooms/r", "s", "p", {"name": "n"}, "token", 10.0, 30.0, 99, "t-greeted")
    learn({"t-greeted": "acme"})
    assert TRANSLATOR.greeting(welcome) == [
        ("room_ready", {"room_name": "r", "room_url": "ws://h/rooms/r", "session_id": "s"}, b""),
        (
            "connected",
            {
                "type": "init",
                "participantId": "p",
                "attributes": {"name": "n"},
                "meshhost": {
                    "version": 1,
                    "extensions": [
                        "leases",
                        "resume",
                        "dead_letters",
                        "cancel",
                        "cancel_request",
                        "send_id",
                        "confirm_receive",
                        "ack_many",
                        "message_life",
                        "large_bodies",
                        "resume_uploads",
                        "traces",
                        "tool_progress",
                        "log_lines",
                        "table_rows",
                    ],
                    "resume_token": "token",
                    "resume_seconds": 10.0,
                    "lease_seconds": 30.0,
                    "max_message_bytes": 99,
                    "tenant": {"id": "t-greeted", "name": "acme"},
                },
            },
            b"",
        ),
    ]


def test_a_client_of_meshhost_can_do_more() -> None:
    ours = Handshake({RESUME_HEADER: "-"}, {})
    assert SDK_06.translator(ours).capabilities == {Capability.RESUME, Capability.CANCEL}
    assert (SDK_06.resume_token(ours), SDK_06.resume_token(PLAIN)) == ("-", None)
    assert TRANSLATOR.capabilities == frozenset()


class _Newer(type(SDK_06)):  # type: ignore[misc]
    def matches(self, handshake: Handshake) -> bool:
        return handshake.query.get("v") == "9"


def test_the_first_dialect_that_recognises_a_client_is_chosen() -> None:
    newer = _Newer()
    dialects = Dialects([newer, SDK_06])
    assert dialects.choose(Handshake({}, {"v": "9"})) is newer
    assert dialects.choose(PLAIN) is SDK_06
    with pytest.raises(InvalidRequestError, match="does not speak"):
        Dialects([newer]).choose(PLAIN)


def test_a_page_in_a_browser_says_by_parameters_what_others_say_by_headers() -> None:
    page = Handshake({}, {"resume": "token", "look": "1"})
    assert SDK_06.resume_token(page) == "token"
    assert SDK_06.translator(page).capabilities == {Capability.RESUME, Capability.CANCEL, Capability.LOOK}
    assert Capability.LOOK not in SDK_06.translator(Handshake({}, {"resume": "-"})).capabilities
    assert SDK_06.translator(Handshake({}, {"look": "1"})).capabilities == frozenset()
